/* BSD's own place for NULL. */
#include <stddef.h>
