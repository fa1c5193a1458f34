/* The target's name for the host's byte order. */
#include <sys/endian.h>
