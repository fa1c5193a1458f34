/*
 * layout RUNS: where a program finds its memory, its process number and its guard value, over RUNS fresh execs.
 *
 *   pid                                  all of them, decimal
 *   stack, heap, large, mmap, text       how many different addresses, the bits that differ, and the first address
 *   guard                                the same of the stack protector's value; left out where it cannot be read
 * All numbers but the process numbers are hexadecimal. `large` is a malloc of 4 MB.
 */
#include "os.h"

#define LARGE (4 << 20)
#define KEYS 6
#define MOST 200

struct report {
    unsigned long pid;
    unsigned long value[KEYS];
    int guarded;
};
static const char *const names[KEYS] = { "stack", "heap", "large", "mmap", "text", "guard" };

/* The exec'd half: standard output is the pipe. */
static int look(void)
{
    struct report report;
    union {
        int (*function)(void);
        unsigned long number;
    } text;

    memset(&report, 0, sizeof(report));
    text.function = look;
    report.pid = (unsigned long)getpid();
    report.value[0] = (unsigned long)&report;
    report.value[1] = (unsigned long)malloc(64);
    report.value[2] = (unsigned long)malloc(LARGE);
    report.value[3] = (unsigned long)mmap(NULL, 4096, PROT_READ, MAP_ANON | MAP_PRIVATE, -1, 0);
    report.value[4] = text.number;
    report.guarded = os_guard(&report.value[5]) == 0;
    if (report.value[1] == 0 || report.value[2] == 0 || report.value[3] == (unsigned long)MAP_FAILED)
        die("memory");
    return write(1, &report, sizeof(report)) == (ssize_t)sizeof(report) ? 0 : 2;
}

static struct report again(const char *self)
{
    struct report report;
    int ends[2], status;
    pid_t child;

    if (pipe(ends) != 0)
        die("pipe");
    fflush(stdout);
    child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        dup2(ends[1], 1);
        close(ends[0]);
        close(ends[1]);
        execl(self, self, (char *)NULL);
        _exit(3);
    }
    close(ends[1]);
    if (read(ends[0], &report, sizeof(report)) != (ssize_t)sizeof(report)) {
        status = os_reap(child);
        fprintf(stderr, "%s: exec'd child ended with wait status %d\n", self, status);
        exit(2);
    }
    close(ends[0]);
    if (os_reap(child) != 0)
        exit(2);
    return report;
}

static void summarise(const struct report *reports, int runs, int key)
{
    unsigned long first = reports[0].value[key], differ = 0;
    int run, earlier, different = 0;

    for (run = 0; run < runs; run++) {
        differ |= reports[run].value[key] ^ first;
        for (earlier = 0; earlier < run; earlier++)
            if (reports[earlier].value[key] == reports[run].value[key])
                break;
        different += earlier == run;
    }
    printf("%s=%x %lx %lx\n", names[key], different, differ, first);
}

int main(int argc, char **argv)
{
    static struct report reports[MOST];
    int runs, run, key;

    if (argc < 2)
        return look();
    runs = atoi(argv[1]);
    if (runs < 1 || runs > MOST)
        return 2;
    for (run = 0; run < runs; run++)
        reports[run] = again(argv[0]);
    printf("pid=");
    for (run = 0; run < runs; run++)
        printf("%s%lu", run ? " " : "", reports[run].pid);
    printf("\n");
    for (key = 0; key < KEYS; key++)
        if (key < KEYS - 1 || reports[0].guarded)
            summarise(reports, runs, key);
    finish();
    return 0;
}
