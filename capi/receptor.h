/* The C interface of the Receptor library: a mesh node inside any process.
 *
 * Everything but these four functions travels over file descriptors: receptor_open gives one end of a local socket that
 * speaks the session protocol (go/session/README.md), and streams, listeners and datagram sockets arrive on it as
 * further descriptors. The library never calls back, keeps none of the caller's memory, and hands out none of its own.
 *
 * The library runs the Go runtime. It does not survive fork() without exec, cannot be unloaded, and raises the soft
 * limit of open files of the process when it is loaded (save it before, restore it after the first call). It handles no
 * signals of the host's and writes to neither standard output nor error. A write of its own to a closed pipe or socket is
 * an error of that write, whether the host ignores SIGPIPE or leaves it at its default before it loads the library; a host
 * that resets SIGPIPE later would be ended by it. Its threads take any signal that the host has not blocked by then, and
 * use SIGURG among themselves.
 */
#ifndef RECEPTOR_H
#define RECEPTOR_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Changes only when one of these functions changes. A caller that was built for another number must not go on. */
#define RECEPTOR_ABI 1

/* Returns RECEPTOR_ABI of the library. Any thread, at any time. */
int32_t receptor_abi(void);

/* Returns a JSON object with the keys "version" and "abi", terminated by NUL; static, never freed. Any thread. */
const char *receptor_build_info(void);

/* Starts a session and returns the caller's end of its socket: blocking, close-on-exec, owned by the caller; closing it
 * ends the session and the node it opened. Does nothing that could wait.
 *
 * cfg, n    a JSON object of n bytes, borrowed for the call: {"abi": 1, "environ": {NAME: VALUE, ...}}
 * err       receives the text of an error, terminated by NUL and cut to errcap bytes; may be NULL if errcap is 0
 *
 * Negative results: -1 cfg is not usable, -2 no socket could be made, -3 a fault of the library's. Any thread. */
int32_t receptor_open(const char *cfg, int64_t n, char *err, int64_t errcap);

/* Writes the stacks of all goroutines to buf, for reports of faults, cut to cap bytes, without a NUL. Returns the number
 * of bytes written, or -1 if buf is NULL or cap is not positive. Any thread. */
int32_t receptor_dump(char *buf, int64_t cap);

#ifdef __cplusplus
}
#endif
#endif
