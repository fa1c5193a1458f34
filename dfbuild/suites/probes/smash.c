/*
 * smash: what becomes of a function whose buffer is overflown. Each case runs in a child of its own.
 *
 *   buffer16, buffer8, buffer7   char arrays of that size, overflown far beyond the return address:
 *                                `detected` (SIGABRT, or the handler's own exit), `undetected` (the return went astray)
 *   variables                    locals around an array that is overflown a little: `intact` or `clobbered`
 *   control                      the same function with a text that fits: `returned`
 * Anything else is `signal-N` or `status-N`, and proves nothing.
 */
#include "os.h"

enum { RETURNED = 10, INTACT = 11, CLOBBERED = 12, HANDLER = 127 };
#define CANARY 0x13572468L

/* Called through a volatile pointer: the compiler can neither see the length nor inline what it is called from. */
static void fill(char *to, unsigned length)
{
    while (length-- > 0)
        *to++ = 'A';
}
static void (*volatile write_to)(char *, unsigned) = fill;

static int buffer16(unsigned length)
{
    char buffer[16];

    write_to(buffer, length);
    return buffer[0] == 'A';
}

static int buffer8(unsigned length)
{
    char buffer[8];

    write_to(buffer, length);
    return buffer[0] == 'A';
}

static int buffer7(unsigned length)
{
    char buffer[7];

    write_to(buffer, length);
    return buffer[0] == 'A';
}

/* Locals whose address is known elsewhere stay together in memory; that many a compiler puts above a small array. */
struct locals {
    long a, b, c, d, e, f, g, h;
};

static void write_locals(struct locals *locals)
{
    locals->a = locals->b = locals->c = locals->d = locals->e = locals->f = locals->g = locals->h = CANARY;
}
static void (*volatile set)(struct locals *) = write_locals;

static int read_locals(const struct locals *locals)
{
    return locals->a == CANARY && locals->b == CANARY && locals->c == CANARY && locals->d == CANARY
           && locals->e == CANARY && locals->f == CANARY && locals->g == CANARY && locals->h == CANARY;
}
static int (*volatile intact)(const struct locals *) = read_locals;

/* A compiler that knew it as the end of the process would protect nothing in its caller: there is no return. */
static void (*volatile leave)(int) = _exit;

/* Leaves before it returns: what is asked is the locals' place, not the return address. */
static int variables(unsigned length)
{
    struct locals locals;
    char buffer[16];

    set(&locals);
    write_to(buffer, length);
    leave(intact(&locals) ? INTACT : CLOBBERED);
    return buffer[0] == 'A';
}

static const struct {
    const char *name;
    int (*function)(unsigned);
    unsigned length;
} cases[] = {
    { "control", buffer16, 8 },   { "buffer16", buffer16, 200 },    { "buffer8", buffer8, 200 },
    { "buffer7", buffer7, 200 },  { "variables", variables, 16 + 16 },
};

static void report(const char *name, int status)
{
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT)
        printf("%s=detected\n", name);
    else if (WIFSIGNALED(status)
             && (WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGBUS || WTERMSIG(status) == SIGILL))
        printf("%s=undetected\n", name);
    else if (WIFSIGNALED(status))
        printf("%s=signal-%d\n", name, WTERMSIG(status));
    else if (WEXITSTATUS(status) == HANDLER)
        printf("%s=detected\n", name);
    else if (WEXITSTATUS(status) == RETURNED)
        printf("%s=returned\n", name);
    else if (WEXITSTATUS(status) == INTACT)
        printf("%s=intact\n", name);
    else if (WEXITSTATUS(status) == CLOBBERED)
        printf("%s=clobbered\n", name);
    else
        printf("%s=status-%d\n", name, WEXITSTATUS(status));
}

/*
 * What is overflown overwrites what its callers have on the stack: this is there to be overwritten. Without it the
 * environment would be, which a handler reads that tells syslogd, and that dies of it looks like one that is not there.
 */
static int with_room(int (*volatile function)(unsigned), unsigned length)
{
    volatile char room[1024];
    int value;

    room[0] = room[sizeof(room) - 1] = 0;
    value = function(length);
    return value + room[sizeof(room) - 1];
}

int main(void)
{
    unsigned i;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        pid_t child = os_fork_quiet();

        if (child == 0) {
            _exit(with_room(cases[i].function, cases[i].length) ? RETURNED : 1);
        }
        report(cases[i].name, os_reap(child));
    }
    finish();
    return 0;
}
