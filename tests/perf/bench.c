/* What a guest's user program measures for `cargo xtask bench`: one line each, `bench: WORK COUNT TICKS IDLE`, in
 * ticks of the timebase and in nanoseconds for which the CPU was idle. It runs in place of the first shell. Without libc; build: gcc -Os -static -nostdlib -ffreestanding. */

/* System calls of 32-bit PowerPC Linux (arch/powerpc/kernel/syscalls/syscall.tbl). */
enum { EXIT = 1, FORK = 2, READ = 3, WRITE = 4, OPEN = 5, CLOSE = 6, EXECVE = 11, PAUSE = 29, GETPPID = 64, WAIT4 = 114, UNAME = 122 };
/* How often each work is done. */
enum { TURNS = 1000000, CALLS = 20000, CHILDREN = 200, WARM = 10 };
/* struct new_utsname: each field, the field with the domain, and where in it the entry's time is (xtask/src/bench). */
enum { FIELD = 65, DOMAIN = 5, ENTERED = 16 };

static long call(long number, long a, long b, long c, long d)
{
	register long r0 __asm__("r0") = number;
	register long r3 __asm__("r3") = a;
	register long r4 __asm__("r4") = b;
	register long r5 __asm__("r5") = c;
	register long r6 __asm__("r6") = d;

	__asm__ volatile("sc" : "+r"(r0), "+r"(r3), "+r"(r4), "+r"(r5), "+r"(r6)
			 :
			 : "r7", "r8", "r9", "r10", "r11", "r12", "cr0", "ctr", "xer", "memory");
	return r3;
}

static unsigned now(void)
{
	unsigned ticks;

	__asm__ volatile("mfspr %0, 268" : "=r"(ticks) : : "memory");
	return ticks;
}

/* For how many nanoseconds the CPU has been idle: the kernel's own account. */
static unsigned idle(void)
{
	static const char name[] = "idle_sleeptime : ";
	static char text[512];
	unsigned value = 0;
	unsigned matched = 0;
	long file = call(OPEN, (long)"/proc/timer_list", 0, 0, 0);
	long length;
	long at;

	while ((length = call(READ, file, (long)text, sizeof text, 0)) > 0) {
		for (at = 0; at < length; at++) {
			if (matched < sizeof name - 1)
				matched = text[at] == name[matched] ? matched + 1 : 0;
			else if (text[at] >= '0' && text[at] <= '9')
				value = 10 * value + (text[at] - '0');
			else
				goto found;
		}
	}
found:
	call(CLOSE, file, 0, 0, 0);
	return value;
}

static char *number(char *end, unsigned value)
{
	do {
		*--end = '0' + value % 10;
		value /= 10;
	} while (value != 0);
	return end;
}

static void say(const char *work, unsigned count, unsigned ticks, unsigned rest)
{
	char line[80];
	char digits[10];
	char *to = line;
	const char *from;

	for (from = "bench: "; *from != 0; from++)
		*to++ = *from;
	for (from = work; *from != 0; from++)
		*to++ = *from;
	*to++ = ' ';
	for (from = number(digits + sizeof digits, count); from < digits + sizeof digits; from++)
		*to++ = *from;
	*to++ = ' ';
	for (from = number(digits + sizeof digits, ticks); from < digits + sizeof digits; from++)
		*to++ = *from;
	*to++ = ' ';
	for (from = number(digits + sizeof digits, rest); from < digits + sizeof digits; from++)
		*to++ = *from;
	*to++ = '\n';
	call(WRITE, 1, (long)line, to - line, 0);
}

/* Timebase when the kernel was entered. */
static unsigned entered(void)
{
	char names[6 * FIELD];
	const unsigned char *at = (const unsigned char *)names + DOMAIN * FIELD + ENTERED;

	call(UNAME, (long)names, 0, 0, 0);
	return (unsigned)at[0] << 24 | at[1] << 16 | at[2] << 8 | at[3];
}

/* As many instructions as turns. */
static void turn(unsigned count)
{
	__asm__ volatile("mtctr %0\n1:\tbdnz 1b" : : "r"(count) : "ctr");
}

static void child(const char *program)
{
	const char *arguments[] = { program, "child", 0 };
	long process = call(FORK, 0, 0, 0, 0);

	if (process == 0) {
		call(EXECVE, (long)program, (long)arguments, (long)&arguments[2], 0);
		call(EXIT, 1, 0, 0, 0);
	}
	call(WAIT4, process, 0, 0, 0);
}

/* `stack` is where the kernel has put the arguments: their number, then each. */
__attribute__((noreturn, used)) void run(const long *stack)
{
	const char *program = (const char *)stack[1];
	unsigned first = now();
	unsigned start;
	unsigned taken;
	unsigned rest = 0;
	int turns;

	if (stack[0] > 1)
		call(EXIT, 0, 0, 0, 0);
	rest = idle();
	say("boot", 1, first - entered(), rest);

	start = now();
	turn(TURNS);
	say("turn", TURNS, now() - start, 0);

	call(GETPPID, 0, 0, 0, 0);
	rest = idle();
	start = now();
	for (turns = 0; turns < CALLS; turns++)
		call(GETPPID, 0, 0, 0, 0);
	taken = now() - start;
	say("syscall", CALLS, taken, idle() - rest);

	for (turns = 0; turns < WARM; turns++)
		child(program);
	rest = idle();
	start = now();
	for (turns = 0; turns < CHILDREN; turns++)
		child(program);
	taken = now() - start;
	say("fork", CHILDREN, taken, idle() - rest);

	say("done", 0, 0, 0);
	for (;;)
		call(PAUSE, 0, 0, 0, 0);
}

__asm__(".globl _start\n_start:\tmr 3, 1\n\tli 0, 0\n\tstwu 0, -16(1)\n\tb run");
