/*
 * What code compiled with -fstack-protector calls where a stack was smashed, for kernels of trees that have neither
 * of the two symbols (searched for in 1.8 to 5.9). The canary has bytes that end strings, and is no pointer.
 */
#include <sys/param.h>
#include <sys/systm.h>

void __stack_chk_fail(void);

unsigned long __stack_chk_guard = 0xd0f1ea0d00ff0a0dUL;

void
__stack_chk_fail(void)
{
	panic("stack smashed in the function around %p",
	    __builtin_return_address(0));
}
