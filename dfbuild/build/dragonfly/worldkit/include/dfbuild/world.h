/* Names that were free when programs that run while the world is built were written. Read before every C file. */

#ifndef DFBUILD_WORLD_H
#define DFBUILD_WORLD_H

#include <stdio.h>

#define getline dfbuild_getline

#endif
