/* The host's <sys/types.h>, with the integers of known size that BSDs' declares. */
#include_next <sys/types.h>
#include <stdint.h>
