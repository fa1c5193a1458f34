/*
 * PID 1 of the reference guest: brings it from the initramfs to a login on the console and a listening sshd.
 *
 * It runs in the initramfs, loads the modules there, makes the ext4 file system on the disk that the kernel command
 * line calls `root=` the root, and stays process 1. The word `dfbuild.fault=` there makes it misbehave, see faults.h.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <linux/reboot.h>
#include <net/if.h>
#include <net/route.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "faults.h"

#define READ_WHOLE_LOG 3 /* syslog(2): SYSLOG_ACTION_READ_ALL */

static char command_line[4096];

/* The value of the last `word=` on the kernel command line, or the fallback. */
static const char *
word(const char *name, const char *fallback, char *value, size_t size)
{
	size_t length = strlen(name);
	const char *at = command_line;

	snprintf(value, size, "%s", fallback);
	while (*at != '\0') {
		size_t span = strcspn(at, " \n");

		if (span > length && strncmp(at, name, length) == 0 && at[length] == '=')
			snprintf(value, size, "%.*s", (int)(span - length - 1), at + length + 1);
		at += span;
		at += strspn(at, " \n");
	}
	return value;
}

static void
mount_or_say(const char *source, const char *target, const char *type, unsigned long flags, const char *data)
{
	if (mount(source, target, type, flags, data) != 0 && errno != EBUSY)
		say("init: mounting %s: %s\n", target, strerror(errno));
}

static void
load_module(const char *path, const char *options)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || (syscall(SYS_finit_module, fd, options, 0) != 0 && errno != EEXIST))
		say("init: loading %s: %s\n", path, strerror(errno));
	if (fd >= 0)
		close(fd);
}

/* Load every module of a directory; the names are numbered in the order in which they depend on each other. */
static void
load_modules(const char *directory, const char *options)
{
	struct dirent **entries;
	char path[512];
	int count = scandir(directory, &entries, NULL, alphasort);

	for (int i = 0; i < count; i++) {
		if (entries[i]->d_name[0] != '.') {
			snprintf(path, sizeof path, "%s/%s", directory, entries[i]->d_name);
			load_module(path, options);
		}
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
}

/* Devices may still be probing when their modules have been loaded. Waits for a file that opens, two seconds long. */
static int
open_patiently(const char *path, int flags)
{
	struct timespec moment = {0, 5000000};
	int fd = open(path, flags);

	for (int tries = 0; fd < 0 && tries < 400; tries++) {
		nanosleep(&moment, NULL);
		fd = open(path, flags);
	}
	return fd;
}

/* A console that is opened before the kernel has it complains in the log; /proc/consoles says when it has. */
static void
await_console(void)
{
	struct timespec moment = {0, 5000000};
	char line[80];
	ssize_t length = 0;

	for (int tries = 0; length <= 0 && tries < 400; tries++) {
		int fd = open("/proc/consoles", O_RDONLY | O_CLOEXEC);

		length = read(fd, line, sizeof line);
		close(fd);
		nanosleep(&moment, NULL);
	}
}

/* Make `fd` standard input, output and error. */
static void
use(int fd)
{
	if (fd < 0)
		return;
	for (int i = 0; i < 3; i++)
		dup2(fd, i);
	if (fd > 2)
		close(fd);
}

/*
 * The kernel has dropped what it printed before the console's module was there: say it again, as far as the kernel
 * would have, so that a transcript always begins with "Linux version".
 */
static void
replay_kernel_messages(void)
{
	static char log[1 << 18];
	int length = klogctl(READ_WHOLE_LOG, log, sizeof log - 1);
	const int shown = 6; /* loglevel= of the release's data */

	if (length < 0)
		return;
	log[length] = '\0';
	for (char *line = strtok(log, "\n"); line != NULL; line = strtok(NULL, "\n")) {
		char *text = line;
		long priority = line[0] == '<' ? strtol(line + 1, &text, 10) : 0;

		if ((priority & 7) < shown)
			say("%s\n", *text == '>' ? text + 1 : text);
	}
}

static void
become_root(const char *disk)
{
	mkdir("/root", 0755);
	close(open_patiently(disk, O_RDONLY | O_CLOEXEC));
	if (mount(disk, "/root", "ext4", 0, NULL) != 0) {
		say("init: cannot mount the root file system: %s\n", strerror(errno));
		exit(1);
	}
	mount_or_say("/dev", "/root/dev", NULL, MS_MOVE, NULL);
	mount_or_say("/proc", "/root/proc", NULL, MS_MOVE, NULL);
	mount_or_say("/sys", "/root/sys", NULL, MS_MOVE, NULL);
	if (chdir("/root") != 0 || mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0 || chdir("/") != 0)
		say("init: cannot change to the root file system: %s\n", strerror(errno));
	mkdir("/dev/pts", 0755);
	mkdir("/dev/shm", 01777);
	mount_or_say("devpts", "/dev/pts", "devpts", 0, "gid=5,mode=620,ptmxmode=666");
	mount_or_say("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
	mount_or_say("tmp", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
	mount_or_say("run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755");
}

static void
set_address(struct sockaddr *where, const char *address)
{
	struct sockaddr_in *in = (struct sockaddr_in *)where;

	memset(in, 0, sizeof *in);
	in->sin_family = AF_INET;
	in->sin_addr.s_addr = inet_addr(address);
}

static void
interface_up(const char *name, const char *address, const char *netmask)
{
	struct ifreq request;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	memset(&request, 0, sizeof request);
	snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
	set_address(&request.ifr_addr, address);
	if (ioctl(fd, SIOCSIFADDR, &request) == 0) {
		set_address(&request.ifr_netmask, netmask);
		ioctl(fd, SIOCSIFNETMASK, &request);
		ioctl(fd, SIOCGIFFLAGS, &request);
		request.ifr_flags |= IFF_UP | IFF_RUNNING;
		ioctl(fd, SIOCSIFFLAGS, &request);
	}
	close(fd);
}

/* The loopback, and the addresses that QEMU's user network gives its first guest, without waiting for DHCP. */
static void
start_network(void)
{
	struct rtentry route;
	int fd;

	interface_up("lo", "127.0.0.1", "255.0.0.0");
	interface_up("eth0", "10.0.2.15", "255.255.255.0");
	memset(&route, 0, sizeof route);
	set_address(&route.rt_dst, "0.0.0.0");
	set_address(&route.rt_genmask, "0.0.0.0");
	set_address(&route.rt_gateway, "10.0.2.2");
	route.rt_flags = RTF_UP | RTF_GATEWAY;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ioctl(fd, SIOCADDRT, &route);
	close(fd);
}

static void
set_hostname(void)
{
	char name[64] = "";
	int fd = open("/etc/hostname", O_RDONLY | O_CLOEXEC);
	ssize_t length = fd >= 0 ? read(fd, name, sizeof name - 1) : 0;

	if (length > 0) {
		name[strcspn(name, "\n")] = '\0';
		sethostname(name, strlen(name));
	}
	if (fd >= 0)
		close(fd);
}

/* Start a program in a session of its own, its messages going to the file `log` or else where ours go. */
static pid_t
spawn(char *const argv[], const char *log)
{
	static char *const environment[] = {
		"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME=/root", "TERM=vt100", NULL,
	};
	sigset_t none;
	int fd;
	pid_t pid = fork();

	if (pid == 0) {
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		setsid();
		fd = log != NULL ? open(log, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
		if (fd >= 0) {
			dup2(fd, 2);
			close(fd);
		}
		execve(argv[0], argv, environment);
		say("init: %s: %s\n", argv[0], strerror(errno));
		_exit(127);
	}
	return pid;
}

/* Watch the power button, in a process of its own, and tell process 1 to power off. */
static void
watch_power_button(void)
{
	struct input_event event;
	sigset_t none;
	char path[32], name[32];

	if (fork() != 0)
		return;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	for (int i = 0; i < 8; i++) {
		int fd;

		snprintf(path, sizeof path, "/dev/input/event%d", i);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		memset(name, 0, sizeof name);
		ioctl(fd, EVIOCGNAME(sizeof name - 1), name);
		while (strcmp(name, "Power Button") == 0 && read(fd, &event, sizeof event) == (ssize_t)sizeof event)
			if (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1)
				kill(1, SIGUSR2);
		close(fd);
	}
	_exit(0);
}

static void
shut_down(int how)
{
	struct timespec second = {1, 0};
	sigset_t child;
	pid_t left;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	kill(-1, SIGCONT);
	kill(-1, SIGTERM);
	kill(-1, SIGHUP); /* interactive shells ignore the other one */
	do {
		while ((left = waitpid(-1, NULL, WNOHANG)) > 0)
			;
	} while (left == 0 && sigtimedwait(&child, NULL, &second) == SIGCHLD);
	kill(-1, SIGKILL);
	sync();
	mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
	reboot(how);
}

int
main(void)
{
	char fault[32], console[64], root[64];
	char *const sshd[] = {"/usr/sbin/dropbear", "-F", "-E", "-s", "-r", "/etc/dropbear/host_key", NULL};
	char *getty[] = {"/sbin/getty", "-L", "115200", console, "vt100", NULL};
	pid_t sshd_pid, getty_pid;
	sigset_t watched;
	int early, fd;

	umask(022);
	mkdir("/dev", 0755);
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mount_or_say("dev", "/dev", "devtmpfs", MS_NOSUID, "mode=755");
	mount_or_say("proc", "/proc", "proc", 0, NULL);
	mount_or_say("sys", "/sys", "sysfs", 0, NULL);
	fd = open("/dev/console", O_RDWR | O_NOCTTY);
	early = fd >= 0;
	use(early ? fd : open("/dev/null", O_RDWR));
	fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, command_line, sizeof command_line - 1) < 0)
		say("init: no command line\n");
	close(fd);
	word("dfbuild.fault", "", fault, sizeof fault);
	word("console", "ttyS0", console, sizeof console);
	console[strcspn(console, ",")] = '\0';

	load_modules("/modules", "");
	if (strcmp(fault, "hang") == 0 || strcmp(fault, "wedge") == 0)
		load_modules("/modules.fault", "allow_writes=on");
	if (!early) {
		await_console();
		use(open_patiently("/dev/console", O_RDWR | O_NOCTTY));
		replay_kernel_messages();
	}
	become_root(word("root", "/dev/vda", root, sizeof root));
	set_hostname();
	start_network();

	/* Ctrl-Alt-Del, kill(1)'s SIGTERM (reboot), and busybox's poweroff, halt and reboot, which signal process 1. */
	reboot(RB_DISABLE_CAD);
	sigfillset(&watched);
	sigprocmask(SIG_BLOCK, &watched, NULL);

	if (fault[0] != '\0')
		misbehave(fault);
	watch_power_button();
	sshd_pid = spawn(sshd, "/run/dropbear.log");
	getty_pid = spawn(getty, NULL);
	for (;;) {
		struct timespec second = {1, 0};
		pid_t pid;
		int status, signal_number = sigwaitinfo(&watched, NULL);

		if (signal_number == SIGUSR2)
			shut_down(RB_POWER_OFF);
		else if (signal_number == SIGUSR1)
			shut_down(RB_HALT_SYSTEM);
		else if (signal_number == SIGTERM || signal_number == SIGINT)
			shut_down(RB_AUTOBOOT);
		while (signal_number == SIGCHLD && (pid = waitpid(-1, &status, WNOHANG)) > 0) {
			if (pid != getty_pid && pid != sshd_pid)
				continue;
			if (status != 0)
				nanosleep(&second, NULL); /* what cannot run must not keep a CPU busy */
			if (pid == getty_pid)
				getty_pid = spawn(getty, NULL);
			else
				sshd_pid = spawn(sshd, "/run/dropbear.log");
		}
	}
}
