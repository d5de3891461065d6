#include "receptor.h"

/* Not in receptor.h: for this library's Go side. */
const char *receptor_build_version(void);

/* The build sets RECEPTOR_VERSION; a library without it says so. */
#ifndef RECEPTOR_VERSION
#define RECEPTOR_VERSION ""
#endif

#define STRING_(x) #x
#define STRING(x) STRING_(x)

/* In C, so that asking does not enter Go. */
int32_t receptor_abi(void) { return RECEPTOR_ABI; }

const char *receptor_build_info(void) {
	return "{\"abi\":" STRING(RECEPTOR_ABI) ",\"version\":\"" RECEPTOR_VERSION "\"}";
}

const char *receptor_build_version(void) { return RECEPTOR_VERSION; }
