#include <signal.h>

#include "receptor.h"

/* Not in receptor.h: for this library's Go side. */
const char *receptor_build_version(void);
int receptor_sigpipe_was_ignored(void);

#define STRING_(x) #x
#define STRING(x) STRING_(x)

/* The build sets RECEPTOR_VERSION, without quotes: -DRECEPTOR_VERSION=1.2.3 */
#ifdef RECEPTOR_VERSION
#define VERSION STRING(RECEPTOR_VERSION)
#else
#define VERSION ""
#endif

/* In C, so that asking does not enter Go. */
int32_t receptor_abi(void) { return RECEPTOR_ABI; }

const char *receptor_build_info(void) {
	return "{\"abi\":" STRING(RECEPTOR_ABI) ",\"version\":\"" VERSION "\"}";
}

const char *receptor_build_version(void) { return VERSION; }

static int sigpipe_was_ignored;

/* Has a priority, and so comes before the Go runtime, which puts a handler of its own in place. */
__attribute__((constructor(101))) static void look_at_signals(void) {
	struct sigaction now;
	sigpipe_was_ignored = sigaction(SIGPIPE, 0, &now) == 0 && now.sa_handler == SIG_IGN;
}

int receptor_sigpipe_was_ignored(void) { return sigpipe_was_ignored; }
