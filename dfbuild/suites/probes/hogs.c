/*
 * hogs COUNT MILLISECONDS free|spread|one: processes that do nothing but compute, all over the same time.
 *
 * `free` leaves their place to the scheduler, `spread` pins hog i to CPU i, `one` pins all to CPU 0.
 * Prints a list per key, one value per hog: cpu (microseconds of CPU time), wall (microseconds since all were told
 * to begin, so that who gets its first turn late has had less of it), home (APIC id of
 * the CPU it was seen on most), share (per mille of its time at home), moves (times its CPU changed), stalled
 * (microseconds that it was charged for without getting any further: the host had taken the CPU away), late (by how
 * many microseconds a sleep of 1 ms after that was too long: a CPU has to wake whom it put to sleep).
 */
#include "os.h"

#define MOST 64
#define CPUS 256

/* A turn of the loop takes less than a millisecond, and the coarsest accounting charges 10 ms at once. */
#define STALL 25e3

struct hog {
    double cpu, wall, stalled, late;
    unsigned home, share, moves;
};

struct order {
    double begin, until;
};

static struct hog compute(struct order order)
{
    static unsigned long seen[CPUS];
    unsigned long looks = 0;
    unsigned last = os_cpu(), now, i;
    double cpu = os_cpu_time(), before = cpu, after, end = os_now();
    struct hog hog;

    memset(&hog, 0, sizeof(hog));
    while (end < order.until) {
        now = os_cpu();
        if (now != last)
            hog.moves++;
        last = now;
        seen[now]++;
        looks++;
        for (i = 0; i < 32; i++)
            end = os_now();
        after = os_cpu_time();
        if (after - before > STALL)
            hog.stalled += after - before;
        before = after;
    }
    hog.cpu = before - cpu;
    hog.wall = end - order.begin;
    hog.home = last;
    for (i = 0; i < CPUS; i++)
        if (seen[i] > seen[hog.home])
            hog.home = i;
    hog.share = (unsigned)(seen[hog.home] * 1000.0 / (looks ? looks : 1));
    return hog;
}

static double nap(void)
{
    struct timespec asked = {0, 1000000};
    double begin = os_now();

    if (nanosleep(&asked, NULL) != 0)
        _exit(6);
    return os_now() - begin - 1000.0;
}

/* A hog waits for its order, which is also its signal to start, so that none has a head start. */
static void child(int pin, int from, int to)
{
    struct hog hog;
    struct order order;

    if (pin >= 0 && os_pin(pin) != 0)
        _exit(3);
    if (read(from, &order, sizeof(order)) != (ssize_t)sizeof(order))
        _exit(4);
    hog = compute(order);
    hog.late = nap();
    _exit(write(to, &hog, sizeof(hog)) == (ssize_t)sizeof(hog) ? 0 : 5);
}

int main(int argc, char **argv)
{
    static struct hog hogs[MOST];
    static pid_t children[MOST];
    int count, i, start[2], results[MOST][2];
    struct order order;
    const char *place;

    if (argc != 4)
        return 2;
    count = atoi(argv[1]);
    place = argv[3];
    if (count < 1 || count > MOST || pipe(start) != 0)
        die("start");
    for (i = 0; i < count; i++) {
        if (pipe(results[i]) != 0)
            die("pipe");
        children[i] = fork();
        if (children[i] < 0)
            die("fork");
        if (children[i] == 0)
            child(strcmp(place, "free") == 0 ? -1 : strcmp(place, "one") == 0 ? 0 : i, start[0], results[i][1]);
        close(results[i][1]);
    }
    order.begin = os_now();
    order.until = order.begin + atof(argv[2]) * 1e3;
    for (i = 0; i < count; i++)
        if (write(start[1], &order, sizeof(order)) != (ssize_t)sizeof(order))
            die("start");
    for (i = 0; i < count; i++) {
        int status;

        if (read(results[i][0], &hogs[i], sizeof(hogs[i])) != (ssize_t)sizeof(hogs[i])) {
            status = os_reap(children[i]);
            if (WIFEXITED(status) && WEXITSTATUS(status) == 3) {
                printf("unsupported=pinning\n");
                finish();
                return 0;
            }
            fprintf(stderr, "hog %d ended with wait status %d\n", i, status);
            return 2;
        }
        os_reap(children[i]);
    }
    printf("cpu=");
    for (i = 0; i < count; i++)
        printf("%s%.0f", i ? " " : "", hogs[i].cpu);
    printf("\nwall=");
    for (i = 0; i < count; i++)
        printf("%s%.0f", i ? " " : "", hogs[i].wall);
    printf("\nhome=");
    for (i = 0; i < count; i++)
        printf("%s%u", i ? " " : "", hogs[i].home);
    printf("\nshare=");
    for (i = 0; i < count; i++)
        printf("%s%u", i ? " " : "", hogs[i].share);
    printf("\nmoves=");
    for (i = 0; i < count; i++)
        printf("%s%u", i ? " " : "", hogs[i].moves);
    printf("\nstalled=");
    for (i = 0; i < count; i++)
        printf("%s%.0f", i ? " " : "", hogs[i].stalled);
    printf("\nlate=");
    for (i = 0; i < count; i++)
        printf("%s%.0f", i ? " " : "", hogs[i].late);
    printf("\n");
    finish();
    return 0;
}
