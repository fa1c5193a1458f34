/* BSDs' functions that take a locale, as far as the host has them: with all others. */
#include <locale.h>
