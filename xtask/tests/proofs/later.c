/* A library to preload: the same programs, 400 days later. Only the wall clock moves; the monotonic clock, which time-outs
 * use, does not. Build: gcc -shared -fPIC. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <sys/time.h>
#include <time.h>

enum { LATER = 400 * 24 * 60 * 60 };

typedef int gettime(clockid_t, struct timespec *);

int clock_gettime(clockid_t clock, struct timespec *now)
{
	static gettime *real;
	int result;

	if (real == NULL)
		real = (gettime *)dlsym(RTLD_NEXT, "clock_gettime");
	result = real(clock, now);
	if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		now->tv_sec += LATER;
	return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec exact;

	(void)zone;
	clock_gettime(CLOCK_REALTIME, &exact);
	now->tv_sec = exact.tv_sec;
	now->tv_usec = exact.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *out)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (out != NULL)
		*out = now.tv_sec;
	return now.tv_sec;
}
