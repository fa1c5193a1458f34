/*
 * What the suites' programs need of an operating system and a processor. They are C89 for every compiler back to
 * gcc 2.95, print `key=value value ...` lines, and end with `end=ok`, so that half an output is never taken for one.
 */
#ifndef DFBUILD_OS_H
#define DFBUILD_OS_H

#ifdef __linux__
#define _GNU_SOURCE /* sched_setaffinity, MAP_ANON */
#endif

#include <sys/types.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/resource.h> /* wants the times of old */
#include <sys/wait.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifdef __linux__
#include <sched.h>
#endif
#ifdef __DragonFly__
#include <sys/param.h>
#include <dlfcn.h>
#if __DragonFly_version >= 200000
#include <sys/usched.h>
#endif
#if __GNUC__ >= 4 && __DragonFly_version >= 200000
#define OS_GUARD "__stack_chk_guard"
#else
#define OS_GUARD "__guard"
#endif
#endif

/* DragonFly 1.0 has no other clock. */
#ifndef CLOCK_MONOTONIC
#define CLOCK_MONOTONIC CLOCK_REALTIME
#endif

#if !defined(__i386__) && !defined(__x86_64__)
#error "these programs are for x86"
#endif

/* Not every program uses all of them. */
#define OS static __attribute__((__unused__))

/* Print `what` with errno's text and end with 2: a probe that is broken, not a finding. */
OS void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(2);
}

/* The last word. Whole lines in one write: children and kernel messages share the terminal. */
OS void finish(void)
{
    printf("end=ok\n");
    if (fflush(stdout) != 0)
        die("stdout");
}

/* Microseconds since some fixed moment. */
OS double os_now(void)
{
    struct timespec now;

    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0)
        die("clock_gettime");
    return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

/* CPU time of this process in microseconds. */
OS double os_cpu_time(void)
{
    struct rusage used;

    if (getrusage(RUSAGE_SELF, &used) != 0)
        die("getrusage");
    return (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1e6 + used.ru_utime.tv_usec + used.ru_stime.tv_usec;
}

/* The initial APIC id of the CPU this runs on: 0 to 255, the same on every system (CPUID leaf 1, EBX 31-24). */
OS unsigned os_cpu(void)
{
    unsigned eax = 1, ebx, ecx = 0, edx;

#ifdef __i386__
    /* ebx belongs to position independent code */
    __asm__ __volatile__("pushl %%ebx; cpuid; movl %%ebx, %1; popl %%ebx"
                         : "+a"(eax), "=&S"(ebx), "+c"(ecx), "=d"(edx));
#else
    __asm__ __volatile__("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
#endif
    return ebx >> 24;
}

/* Stay on the system's CPU number `cpu`: 0, or -1 if this system has no way to. */
OS int os_pin(int cpu)
{
#if defined(__linux__)
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) != 0)
        die("sched_setaffinity");
    return 0;
#elif defined(USCHED_SET_CPU)
    if (usched_set(getpid(), USCHED_SET_CPU, &cpu, sizeof(cpu)) != 0)
        die("usched_set");
    return 0;
#else
    (void)cpu;
    return -1;
#endif
}

/* The stack protector's guard value of this process into `guard`: 0, or -1 where it can't be read. */
OS int os_guard(unsigned long *guard)
{
#if defined(__linux__) && defined(__x86_64__)
    __asm__ __volatile__("movq %%fs:0x28, %0" : "=r"(*guard));
    return 0;
#elif defined(__linux__)
    __asm__ __volatile__("movl %%gs:0x14, %0" : "=r"(*guard));
    return 0;
#elif defined(__DragonFly__)
    /* Asked for by its name: a program that is linked to it counts as protected. */
    const unsigned long *found = (const unsigned long *)dlsym(RTLD_DEFAULT, OS_GUARD);

    if (found == NULL)
        return -1;
    *guard = *found;
    return 0;
#else
    (void)guard;
    return -1;
#endif
}

/* A child that may crash: no core file, nothing of its last words on the terminal. Like fork(). */
OS pid_t os_fork_quiet(void)
{
    struct rlimit none;
    pid_t child;
    int sink;

    fflush(stdout);
    child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        none.rlim_cur = none.rlim_max = 0;
        setrlimit(RLIMIT_CORE, &none);
        sink = open("/dev/null", O_WRONLY);
        if (sink >= 0)
            dup2(sink, 2);
    }
    return child;
}

/* Reap `child` and return its wait status. */
OS int os_reap(pid_t child)
{
    int status;

    while (waitpid(child, &status, 0) != child)
        if (errno != EINTR)
            die("waitpid");
    return status;
}

#endif
