/*
 * Division of 128-bit numbers, which kernels take from the compiler's own library; that is built with the world, of
 * which a kernel that is cross-built needs nothing else.
 */
#include <sys/types.h>

typedef unsigned __int128 u128;

u128 __udivti3(u128, u128);

u128
__udivti3(u128 dividend, u128 divisor)
{
	uint64_t high = dividend >> 64, low = dividend, by = divisor, upper, lower;
	u128 quotient = 0;
	int shift;

	if (divisor >> 64 == 0) {
		/* Two digits of 64 bits, one after the other: what is left is always less than the divisor. */
		upper = high / by;
		high %= by;
		__asm__("divq %3" : "=a" (lower), "+d" (high) : "a" (low), "r" (by) : "cc");
		return ((u128)upper << 64 | lower);
	}
	for (shift = __builtin_clzl(divisor >> 64); shift >= 0; shift--)
		if (dividend >= divisor << shift) {
			dividend -= divisor << shift;
			quotient |= (u128)1 << shift;
		}
	return (quotient);
}
