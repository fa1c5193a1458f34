/*
 * clock: what time it is, in microseconds: `wall` since 1970, `steady` since some fixed moment.
 */
#include "os.h"

int main(void)
{
    struct timeval wall;
    double steady = os_now();

    if (gettimeofday(&wall, NULL) != 0)
        die("gettimeofday");
    printf("wall=%.0f\nsteady=%.0f\n", wall.tv_sec * 1e6 + wall.tv_usec, steady);
    finish();
    return 0;
}
