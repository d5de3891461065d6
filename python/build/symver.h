/* Put before every C file of the library on systems with glibc. Binds it to the first versions of functions that glibc
 * later moved or revised, so that one build runs on all systems since manylinux_2_17. Includes nothing: what a C file
 * defines before its own includes must still count. */
#ifndef __ASSEMBLER__

#if defined(__x86_64__)
#define RECEPTOR_BASELINE "GLIBC_2.2.5"
#elif defined(__aarch64__)
#define RECEPTOR_BASELINE "GLIBC_2.17"
#endif

#ifdef RECEPTOR_BASELINE
#define RECEPTOR_BIND(name) __asm__(".symver " #name "," #name "@" RECEPTOR_BASELINE)
RECEPTOR_BIND(pthread_attr_getstack);
RECEPTOR_BIND(pthread_attr_getstacksize);
RECEPTOR_BIND(pthread_create);
RECEPTOR_BIND(pthread_key_create);
RECEPTOR_BIND(pthread_setspecific);
RECEPTOR_BIND(pthread_getattr_np);
RECEPTOR_BIND(pthread_sigmask);
#endif
#endif
