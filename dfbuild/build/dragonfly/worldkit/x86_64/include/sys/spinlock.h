/* For <sys/tree.h>, whose locked kinds of trees only kernels have. */

#ifndef DFBUILD_SYS_SPINLOCK_H
#define DFBUILD_SYS_SPINLOCK_H

struct spinlock {
	int unused;
};

#endif
