/*
 * PID 1 of the reference guest: brings it from the initramfs to a login on the console and a listening sshd.
 *
 * It runs in the initramfs, loads the modules there, makes the ext4 file system on the first virtio disk the root,
 * and stays process 1. Words on the kernel command line choose how it misbehaves instead, for harness tests:
 *
 *   dfbuild.fault=panic      the kernel panics before the login
 *   dfbuild.fault=init-exit  process 1 exits before the login; the kernel panics
 *   dfbuild.fault=hang       every CPU stops for good before the login
 *   dfbuild.fault=wedge      the login prompt appears, then every CPU stops for good
 *   dfbuild.fault=flood      FLOOD_LINES lines of the form below, then the login
 *   dfbuild.fault=garbage    every byte value, broken UTF-8 and terminal escapes, then the login
 *
 * The flood: line n (0, 1, ... FLOOD_LINES - 1) is FLOOD_WIDTH bytes on the wire: "flood %08u " of n, then 83 bytes
 * in which byte i is '!' + (n * 7 + i * 13) % 94, then "\r\n". Before the first line comes "flood begins\r\n",
 * right behind the last "flood ends 2000000 lines 200000000 bytes\r\n": the lines' number and their bytes.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <net/if.h>
#include <net/route.h>
#include <signal.h>
#include <stdarg.h>
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
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define READ_WHOLE_LOG 3 /* syslog(2): SYSLOG_ACTION_READ_ALL */
#define FLOOD_LINES 2000000U /* times FLOOD_WIDTH: 200 MB */
#define FLOOD_FILL 83
#define FLOOD_WIDTH (sizeof "flood 00000000 " - 1 + FLOOD_FILL + 2)

static char command_line[4096];

static void
say(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vdprintf(2, format, arguments);
	va_end(arguments);
}

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
write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		say("init: %s: %s\n", path, strerror(errno));
	if (fd >= 0)
		close(fd);
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
become_root(void)
{
	mkdir("/root", 0755);
	close(open_patiently("/dev/vda", O_RDONLY | O_CLOEXEC));
	if (mount("/dev/vda", "/root", "ext4", 0, NULL) != 0) {
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

/*
 * Stop every CPU for good: with its local APIC off a CPU gets no interrupt any more, neither of the timer nor of a
 * device, and sleeps at the next idle. Nothing is printed, echoed or answered from then on, as in a real hang.
 */
static void
stop_cpus(void)
{
	const unsigned long long off = 0;
	const off_t apic_base = 0x1b;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	char path[64];

	tcdrain(2);
	for (long cpu = cpus - 1; cpu >= 0; cpu--) {
		int fd;

		snprintf(path, sizeof path, "/dev/cpu/%ld/msr", cpu);
		fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd < 0 || pwrite(fd, &off, sizeof off, apic_base) != (ssize_t)sizeof off)
			say("init: cannot stop CPU %ld: %s\n", cpu, strerror(errno));
	}
	for (;;)
		pause();
}

static void
write_all(const char *data, size_t size)
{
	while (size > 0) {
		ssize_t written = write(1, data, size);

		if (written < 0)
			return;
		data += written;
		size -= (size_t)written;
	}
}

static void
flood(void)
{
	static char buffer[256 * FLOOD_WIDTH + 1];
	unsigned long long bytes = 0;
	unsigned int line = 0;
	struct termios cooked, raw;

	say("flood begins\n");
	/* Unprocessed, the terminal passes whole buffers to the device; otherwise every newline goes on its own. */
	tcgetattr(1, &cooked);
	raw = cooked;
	raw.c_oflag &= ~(tcflag_t)OPOST;
	tcsetattr(1, TCSADRAIN, &raw);
	while (line < FLOOD_LINES) {
		size_t used = 0;

		for (int i = 0; i < 256 && line < FLOOD_LINES; i++, line++) {
			used += (size_t)sprintf(buffer + used, "flood %08u ", line);
			for (unsigned int j = 0; j < FLOOD_FILL; j++)
				buffer[used++] = (char)('!' + (line * 7 + j * 13) % 94);
			buffer[used++] = '\r';
			buffer[used++] = '\n';
		}
		write_all(buffer, used);
		bytes += used;
	}
	tcsetattr(1, TCSADRAIN, &cooked);
	say("flood ends %u lines %llu bytes\n", line, bytes);
}

/* 1 MiB of a fixed pseudo-random sequence with every byte value in it, and what terminals and decoders choke on. */
static void
garbage(void)
{
	static const char nasty[] =
		"\033[2J\033[?1049h\033]0;owned\007\033[31;5m\033c\033P$q\033\\\033[6n\x9b" "999;999H\x80\xff\xfe\xc0\xaf"
		"\xed\xa0\x80\xf4\x90\x80\x80\0\0\0\r\r\n\b\b\b\v\f\016\017<script>alert(1)</script>&lt;\n";
	static char buffer[4096];
	unsigned int state = 1;

	say("garbage begins\n");
	write_all(nasty, sizeof nasty - 1);
	for (int block = 0; block < 256; block++) {
		for (size_t i = 0; i < sizeof buffer; i++) {
			state = state * 1664525U + 1013904223U;
			buffer[i] = (char)(state >> 24);
		}
		write_all(buffer, sizeof buffer);
	}
	write_all(nasty, sizeof nasty - 1);
	say("\033c\ngarbage ends\n");
}

static void
misbehave(const char *fault)
{
	if (strcmp(fault, "panic") == 0)
		write_file("/proc/sysrq-trigger", "c");
	else if (strcmp(fault, "init-exit") == 0)
		_exit(1);
	else if (strcmp(fault, "hang") == 0)
		stop_cpus();
	else if (strcmp(fault, "wedge") == 0) {
		say("\nreference login: ");
		stop_cpus();
	} else if (strcmp(fault, "flood") == 0)
		flood();
	else if (strcmp(fault, "garbage") == 0)
		garbage();
	else
		say("init: unknown dfbuild.fault=%s\n", fault);
}

static void
shut_down(int how)
{
	struct timespec second = {1, 0};
	sigset_t child;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	kill(-1, SIGCONT);
	kill(-1, SIGTERM);
	while (sigtimedwait(&child, NULL, &second) == SIGCHLD)
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	kill(-1, SIGKILL);
	sync();
	mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
	reboot(how);
}

int
main(void)
{
	char fault[32], console[64];
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
	become_root();
	set_hostname();
	start_network();

	/* Ctrl-Alt-Del, kill(1)'s SIGTERM (reboot), and busybox's poweroff, halt and reboot, which signal process 1. */
	reboot(RB_DISABLE_CAD);
	sigfillset(&watched);
	sigprocmask(SIG_BLOCK, &watched, NULL);

	if (fault[0] != '\0')
		misbehave(fault);
	sshd_pid = spawn(sshd, "/run/dropbear.log");
	getty_pid = spawn(getty, NULL);
	for (;;) {
		struct timespec second = {1, 0};
		pid_t pid;
		int signal_number = sigwaitinfo(&watched, NULL);

		if (signal_number == SIGUSR2)
			shut_down(RB_POWER_OFF);
		else if (signal_number == SIGUSR1)
			shut_down(RB_HALT_SYSTEM);
		else if (signal_number == SIGTERM || signal_number == SIGINT)
			shut_down(RB_AUTOBOOT);
		while (signal_number == SIGCHLD && (pid = waitpid(-1, NULL, WNOHANG)) > 0) {
			if (pid == getty_pid)
				getty_pid = spawn(getty, NULL);
			else if (pid == sshd_pid) {
				nanosleep(&second, NULL);
				sshd_pid = spawn(sshd, "/run/dropbear.log");
			}
		}
	}
}
