/*
 * How the reference guest misbehaves where a test of the harness wants it to. `dfbuild.fault=` is one of
 *
 *   panic      the kernel panics before the login
 *   init-exit  process 1 exits before the login; the kernel panics
 *   hang       every CPU stops for good before the login
 *   wedge      the login prompt appears, then every CPU stops for good
 *   flood      FLOOD_LINES lines of the form below, then the login
 *   garbage    every byte value, broken UTF-8 and terminal escapes, then the login
 *
 * The flood: line n (0, 1, ... FLOOD_LINES - 1) is FLOOD_WIDTH bytes on the wire: "flood %08u " of n, then 83 bytes
 * in which byte i is '!' + (n * 7 + i * 13) % 94, then "\r\n". Before the first line comes "flood begins\r\n",
 * right behind the last "flood ends 2000000 lines 200000000 bytes\r\n": the lines' number and their bytes.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#define FLOOD_LINES 2000000U /* times FLOOD_WIDTH: 200 MB */
#define FLOOD_FILL 83
#define FLOOD_WIDTH (sizeof "flood 00000000 " - 1 + FLOOD_FILL + 2)

static void
say(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vdprintf(2, format, arguments);
	va_end(arguments);
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
