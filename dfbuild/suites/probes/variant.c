/*
 * variant: what a variant symlink leads to (varsym(2), symlink(7)), by who looks and which variable is set.
 *
 *   variant PATH NAME UID        PATH is a file below a link to `${NAME}`: prints what is in it under every condition
 *   variant PATH KEY             prints it once, as KEY
 *   variant NAME=VALUE COMMAND   runs COMMAND with the variable set for its process alone, as env(1) does
 *
 * Where nothing can be read, the word is errno's name.
 */
#include "os.h"

static const char *path;

static void tell(const char *key)
{
    char text[32];
    int fd = open(path, O_RDONLY), length;

    if (fd >= 0) {
        length = read(fd, text, sizeof(text) - 1);
        if (length < 0)
            die(path);
        close(fd);
        text[length] = '\0';
        text[strcspn(text, "\n")] = '\0';
    } else if (errno == ENOENT || errno == ELOOP || errno == ENAMETOOLONG) {
        strcpy(text, errno == ENOENT ? "ENOENT" : errno == ELOOP ? "ELOOP" : "ENAMETOOLONG");
    } else {
        die(path);
    }
    printf("%s=%s\n", key, text);
    fflush(stdout);
}

#ifdef __DragonFly__
#include <sys/queue.h>
#include <sys/varsym.h>

static const char *name;

static void set(int level, const char *value)
{
    if (varsym_set(level, name, value) != 0)
        die("varsym_set");
}

/* In a child, which is somebody else if `uid` is not 0, and runs this program anew if `self` is its name. */
static void tell_in_child(const char *key, uid_t uid, const char *self)
{
    pid_t child = fork();

    if (child < 0)
        die("fork");
    if (child == 0) {
        if (uid != 0 && setuid(uid) != 0)
            die("setuid");
        if (self != NULL) {
            execl(self, self, path, key, (char *)NULL);
            die(self);
        }
        tell(key);
        _exit(0);
    }
    if (os_reap(child) != 0)
        exit(2);
}

static void examine(const char *self, uid_t stranger)
{
    char longest[MAXVARSYM_DATA];

    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    tell("unset");
    set(VARSYM_SYS, "system");
    tell("system");
    set(VARSYM_USER, "user");
    tell("user");
    tell_in_child("stranger", stranger, NULL);
    set(VARSYM_PROC, "process");
    tell("process");
    tell_in_child("child", 0, NULL);
    tell_in_child("program", 0, self);
    set(VARSYM_PROC, "view");
    tell("loop");
    set(VARSYM_PROC, longest);
    tell("long");
    set(VARSYM_PROC, NULL);
    set(VARSYM_USER, NULL);
    tell("again");
    set(VARSYM_SYS, NULL);
}

static void run_with(char *setting, char **command)
{
    char *value = strchr(setting, '=');

    *value++ = '\0';
    name = setting;
    set(VARSYM_PROC, value);
    execvp(command[0], command);
    die(command[0]);
}
#endif

int main(int argc, char **argv)
{
    if (argc == 3 && argv[1][0] == '/') {
        path = argv[1];
        tell(argv[2]);
        return 0;
    }
#ifdef __DragonFly__
    if (argc > 2 && strchr(argv[1], '=') != NULL)
        run_with(argv[1], argv + 2);
    if (argc != 4)
        return 2;
    path = argv[1];
    name = argv[2];
    examine(argv[0], (uid_t)atoi(argv[3]));
#else
    printf("variants=none\n");
#endif
    finish();
    return 0;
}
