/* BSD's name for the host's byte order functions, and those that take bytes. */

#ifndef DFBUILD_SYS_ENDIAN_H
#define DFBUILD_SYS_ENDIAN_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define _BYTE_ORDER BYTE_ORDER
#define _LITTLE_ENDIAN LITTLE_ENDIAN
#define _BIG_ENDIAN BIG_ENDIAN
#define bswap16(value) __builtin_bswap16(value)
#define bswap32(value) __builtin_bswap32(value)
#define bswap64(value) __builtin_bswap64(value)

#define DFBUILD_BYTES(name, bits, order)                        \
	static inline uint##bits##_t name##dec(const void *bytes)   \
	{                                                           \
		uint##bits##_t value;                                   \
		memcpy(&value, bytes, sizeof(value));                   \
		return order##bits##toh(value);                         \
	}                                                           \
	static inline void name##enc(void *bytes, uint##bits##_t value) \
	{                                                           \
		value = hto##order##bits(value);                        \
		memcpy(bytes, &value, sizeof(value));                   \
	}

DFBUILD_BYTES(be16, 16, be)
DFBUILD_BYTES(be32, 32, be)
DFBUILD_BYTES(be64, 64, be)
DFBUILD_BYTES(le16, 16, le)
DFBUILD_BYTES(le32, 32, le)
DFBUILD_BYTES(le64, 64, le)

#endif
