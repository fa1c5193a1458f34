/*
 * nx: may memory of each kind be executed? Copies a function that returns 42 there and calls it in a child.
 *
 * A kind is `ran`, `blocked` (the fault's address is the function's) or `crashed`, which proves nothing.
 */
#include "os.h"

#define PAGE 4096
enum { RAN = 42, BLOCKED = 43, CRASHED = 44 };

/* mov $42, %eax; ret: the same bytes on i386 and x86_64 */
static const unsigned char stub[] = { 0xb8, RAN, 0, 0, 0, 0xc3 };

static unsigned char data[64] = { 1 };
static void *target;

static void fault(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    _exit(info->si_addr == target ? BLOCKED : CRASHED);
}

static void call(void *code)
{
    union {
        void *object;
        int (*function)(void);
    } entry;
    struct sigaction action;

    target = code;
    memset(&action, 0, sizeof(action));
    action.sa_sigaction = fault;
    action.sa_flags = SA_SIGINFO;
    if (sigaction(SIGSEGV, &action, NULL) != 0 || sigaction(SIGBUS, &action, NULL) != 0)
        _exit(CRASHED);
    entry.object = code;
    _exit(entry.function() == RAN ? RAN : CRASHED);
}

static void *map(int protection)
{
    void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_ANON | MAP_PRIVATE, -1, 0);

    if (page == MAP_FAILED)
        die("mmap");
    memcpy(page, stub, sizeof(stub));
    if (mprotect(page, PAGE, protection) != 0)
        die("mprotect");
    return page;
}

/* What never could be written in this process: kernels may take the bit for that alone. */
static void *map_file(void)
{
    char name[] = "/tmp/nx.XXXXXX";
    int fd = mkstemp(name);
    unsigned char *page;

    if (fd < 0 || unlink(name) != 0 || write(fd, stub, sizeof(stub)) != (ssize_t)sizeof(stub))
        die(name);
    page = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
    if (page == MAP_FAILED)
        die("mmap");
    /* Read first: a page that is fetched for the sake of its code is asked for with that right. */
    if (memcmp(page, stub, sizeof(stub)) != 0)
        _exit(CRASHED);
    return page;
}

static void run(const char *kind)
{
    unsigned char stack[64];
    void *code;

    memcpy(stack, stub, sizeof(stub));
    memcpy(data, stub, sizeof(stub));
    if (strcmp(kind, "stack") == 0) {
        code = stack;
    } else if (strcmp(kind, "data") == 0) {
        code = data;
    } else if (strcmp(kind, "heap") == 0) {
        code = malloc(64);
        if (code == NULL)
            die("malloc");
        memcpy(code, stub, sizeof(stub));
    } else if (strcmp(kind, "mmap") == 0) {
        code = map(PROT_READ | PROT_WRITE);
    } else if (strcmp(kind, "readonly") == 0) {
        code = map(PROT_READ);
    } else if (strcmp(kind, "file") == 0) {
        code = map_file();
    } else if (strcmp(kind, "rwx") == 0) {
        code = map(PROT_READ | PROT_WRITE | PROT_EXEC);
    } else {
        code = map(PROT_READ | PROT_EXEC);
    }
    call(code);
}

int main(void)
{
    static const char *const kinds[] = { "stack", "data", "heap", "mmap", "readonly", "file", "rwx", "executable" };
    unsigned i;

    for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        pid_t child = os_fork_quiet();
        int status;

        if (child == 0)
            run(kinds[i]);
        status = os_reap(child);
        printf("%s=%s\n", kinds[i],
               WIFEXITED(status) && WEXITSTATUS(status) == RAN       ? "ran"
               : WIFEXITED(status) && WEXITSTATUS(status) == BLOCKED ? "blocked"
                                                                     : "crashed");
    }
    finish();
    return 0;
}
