/*
 * The boot sector's twin for paravirtual guests of Xen: a kernel that is up at once, and does on the domain's console
 * what payload.py says, but for T: what a paravirtual guest cannot handle is not a reset, but a crash.
 *
 * It lies where it is linked, has the page tables that the domain's builder made, no interrupts and no heap: it polls.
 * Numbers and structures are those of Xen's public headers (xen.h, sched.h, event_channel.h, grant_table.h, io/).
 */
#include <stddef.h>
#include <stdint.h>

#define PAGE 4096
#define MACHINE_TO_PHYSICAL ((const uint64_t *)0xffff800000000000)
#define SELF 0x7ff0

enum { update_va_mapping = 14, grant_table_op = 20, sched_op = 29, event_channel_op = 32 };
enum { sched_shutdown = 2, sched_poll = 3 };
enum { event_send = 4, event_alloc_unbound = 6 };
enum { poweroff = 0, reboot = 1 };

struct start_info {
	char magic[32];
	uint64_t pages, shared_info;
	uint32_t flags;
	uint64_t store_frame;
	uint32_t store_port;
	uint64_t console_frame;
	uint32_t console_port;
	uint64_t page_tables, page_table_frames;
	const uint64_t *frames;
};

struct terminal {
	char in[1024], out[2048];
	volatile uint32_t in_consumed, in_produced, out_consumed, out_produced;
};

struct store {
	char request[1024], answer[1024];
	volatile uint32_t requests_consumed, requests_produced, answers_consumed, answers_produced;
};

struct disk_request {
	uint8_t operation, segments;
	uint16_t handle;
	uint64_t id, sector;
	struct { uint32_t grant; uint8_t first, last; } segment[11];
};

struct disk_answer {
	uint64_t id;
	uint8_t operation;
	int16_t status;
};

struct disk_ring {
	volatile uint32_t requests_produced, request_event, answers_produced, answer_event;
	char unused[48];
	union { struct disk_request request; struct disk_answer answer; } slot[1];
};

struct grant {
	volatile uint16_t flags;
	uint16_t domain;
	uint32_t frame;
};

__asm__(
	".section .note.Xen, \"a\", @note\n"
	".macro note number, size, value:vararg\n"
	".long 4, \\size, \\number; .asciz \"Xen\"; \\value; .balign 4\n"
	".endm\n"
	"note 1, 8, .quad start\n"			/* ENTRY */
	"note 3, 8, .quad 0\n"				/* VIRT_BASE */
	"note 4, 8, .quad 0\n"				/* PADDR_OFFSET */
	"note 5, 8, .asciz \"xen-3.0\"\n"		/* XEN_VERSION */
	"note 6, 8, .asciz \"payload\"\n"		/* GUEST_OS */
	"note 8, 8, .asciz \"generic\"\n"		/* LOADER */
	".text\n"
	".global start\n"
	"start: mov %rsi, %rdi; call payload\n"
);

static const struct start_info *info;
static struct terminal *console;
static volatile char shared[PAGE] __attribute__((aligned(PAGE)));
static struct grant grants[PAGE / sizeof(struct grant)] __attribute__((aligned(PAGE)));
static struct disk_ring disk __attribute__((aligned(PAGE)));
static char sector[PAGE] __attribute__((aligned(PAGE)));

static long hypercall(long number, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	long result;
	register uint64_t fourth __asm__("r10") = d;

	__asm__ volatile("syscall" : "=a"(result), "+D"(a), "+S"(b), "+d"(c), "+r"(fourth) : "0"(number) : "rcx", "r11", "memory");
	return result;
}

static void barrier(void)
{
	__asm__ volatile("mfence" : : : "memory");
}

/* The page of ours that a machine frame is. */
static void *page(uint64_t frame)
{
	return (void *)(MACHINE_TO_PHYSICAL[frame] * PAGE);
}

static uint32_t frame(const volatile void *page)
{
	return info->frames[(uint64_t)page / PAGE];
}

/* Have the page `here` be the machine frame at `address`. */
static void map(const volatile void *here, uint64_t address)
{
	hypercall(update_va_mapping, (uint64_t)here, address | 7, 2, 0);
}

static void notify(uint32_t port)
{
	hypercall(event_channel_op, event_send, (uint64_t)&port, 0, 0);
}

/* Wait until something has happened on `port` since it was forgotten; without a port for ever. */
static void wait(const uint32_t *port)
{
	struct { const uint32_t *ports; uint32_t count; uint64_t timeout; } poll = { port, port != NULL, 0 };

	hypercall(sched_op, sched_poll, (uint64_t)&poll, 0, 0);
}

static void forget(uint32_t port)
{
	__asm__ volatile("lock btrl %1, %0" : "+m"(shared[2048]) : "r"(port) : "memory");
}

static _Noreturn void halt(void)
{
	for (;;)
		wait(NULL);
}

static _Noreturn void end(uint32_t reason)
{
	hypercall(sched_op, sched_shutdown, (uint64_t)&reason, 0, 0);
	halt();
}

/* ── the console ─────────────────────────────────────────────────────────────────────────────────────────────── */
static void put(char byte)
{
	while (console->out_produced - console->out_consumed == sizeof console->out) {
		notify(info->console_port);
		forget(info->console_port);
		if (console->out_produced - console->out_consumed == sizeof console->out)
			wait(&info->console_port);
	}
	console->out[console->out_produced % sizeof console->out] = byte;
	barrier();
	console->out_produced++;
}

static char get(void)
{
	char byte;

	barrier();
	notify(info->console_port);	/* what was put and what was got */
	while (console->in_produced == console->in_consumed) {
		forget(info->console_port);
		if (console->in_produced == console->in_consumed)
			wait(&info->console_port);
	}
	byte = console->in[console->in_consumed % sizeof console->in];
	barrier();
	console->in_consumed++;
	return byte;
}

static uint32_t length(const char *text)
{
	uint32_t count = 0;

	while (text[count])
		count++;
	return count;
}

/* ── xenstore ────────────────────────────────────────────────────────────────────────────────────────────────── */
#define READ 2
#define WRITE 11

/* Ask xenstore; its answer, shorter than `room`, goes to `answer`. */
static void ask(uint32_t type, const char *path, const char *value, char *answer, uint32_t room)
{
	struct store *store = page(info->store_frame);
	uint32_t head[4] = { type, 0, 0, 0 }, at;
	const char *parts[] = { (const char *)head, path, value };
	uint32_t sizes[] = { sizeof head, length(path) + 1, length(value) };

	head[3] = sizes[1] + sizes[2];
	for (int part = 0; part < 3; part++)
		for (at = 0; at < sizes[part]; at++)
			store->request[store->requests_produced++ % sizeof store->request] = parts[part][at];
	barrier();
	notify(info->store_port);
	for (at = 0; at < sizeof head || at < sizeof head + head[3]; at++) {
		while (store->answers_produced == store->answers_consumed) {
			forget(info->store_port);
			if (store->answers_produced == store->answers_consumed)
				wait(&info->store_port);
		}
		barrier();
		char byte = store->answer[store->answers_consumed++ % sizeof store->answer];
		if (at < sizeof head)
			((char *)head)[at] = byte;
		else if (at - sizeof head < room - 1)
			answer[at - sizeof head] = byte, answer[at - sizeof head + 1] = 0;
	}
	barrier();
	notify(info->store_port);
}

static void tell(const char *path, uint32_t number)
{
	char text[11], unheard[8];
	int at = sizeof text - 1;

	text[at] = 0;
	do
		text[--at] = '0' + number % 10;
	while (number /= 10);
	ask(WRITE, path, text + at, unheard, sizeof unheard);
}

/* ── the disk xvda, by blkfront's protocol ───────────────────────────────────────────────────────────────────── */
#define DISK "device/vbd/51712/"
#define INITIALISED 3
#define CONNECTED 4

static uint32_t grant(uint32_t number, const volatile void *page)
{
	grants[number].domain = 0;
	grants[number].frame = frame(page);
	barrier();
	grants[number].flags = 1;
	return number;
}

/* Write the second sector. Returns whether that went well. */
static int write_disk(void)
{
	uint64_t table = 0;
	struct { uint16_t domain; uint32_t frames; int16_t status; uint64_t *list; } setup = { SELF, 1, 0, &table };
	struct { uint16_t domain, remote; uint32_t port; } channel = { SELF, 0, 0 };
	char backend[128], state[8];

	hypercall(grant_table_op, 2, (uint64_t)&setup, 1, 0);
	map(grants, table * PAGE);
	hypercall(event_channel_op, event_alloc_unbound, (uint64_t)&channel, 0, 0);
	disk.request_event = disk.answer_event = 1;
	tell(DISK "ring-ref", grant(8, &disk));
	tell(DISK "event-channel", channel.port);
	ask(WRITE, DISK "protocol", "x86_64-abi", state, sizeof state);
	tell(DISK "state", INITIALISED);
	ask(READ, DISK "backend", "", backend, sizeof backend);
	for (uint32_t end = length(backend), at = 0; at < sizeof "/state"; at++)
		backend[end + at] = "/state"[at];
	do
		ask(READ, backend, "", state, sizeof state);
	while (state[0] != '0' + CONNECTED);
	tell(DISK "state", CONNECTED);
	disk.slot[0].request = (struct disk_request){ 1, 1, 0, 1, 1, { { grant(9, sector), 0, 0 } } };
	barrier();
	disk.requests_produced = 1;
	notify(channel.port);
	while (disk.answers_produced == 0) {
		forget(channel.port);
		if (disk.answers_produced == 0)
			wait(&channel.port);
	}
	return disk.slot[0].answer.status == 0;
}

void payload(const struct start_info *start)
{
	info = start;
	console = page(info->console_frame);
	map(shared, info->shared_info);
	for (const char *byte = BANNER; *byte; byte++)
		put(*byte);
	for (;;) {
		char byte = get();
		switch (byte) {
		case 'P':
			end(poweroff);
		case 'R':
			end(reboot);
		case 'H':
			notify(info->console_port);
			halt();
		case 'F':
			for (;;)
				put(byte++);
		case 'W':
			put(write_disk() ? 'w' : 'e');
			break;
		default:
			put(byte);
		}
	}
}
