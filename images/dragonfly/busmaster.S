/*
 * What the BIOS runs first from the disk: switches on bus mastering of the IDE controllers on PCI bus 0, then goes on
 * with the release's own boot code, which lies one sector further on.
 *
 * SeaBIOS leaves bus mastering off, and the ata driver of 1.x takes a controller as it finds it: without this the
 * disk stays in PIO, which loses interrupts on SMP kernels. Assembled to a flat binary at 0x7c00.
 */
        .code16
        .globl  start

        .set    LOAD, 0x7c00
        .set    HERE, 0x0600            /* where this runs, out of the way of what it loads */
        .set    MAGIC, 0x1fe
        .set    BUS0, 0x80000000        /* PCI configuration mechanism 1: enable bit; device and function in bits 15-8 */
        .set    IDE, 0x0101             /* class and subclass */

start:  cli
        cld
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $LOAD, %sp
        movw    %sp, %si
        movw    $HERE, %di
        movw    $0x100, %cx
        rep movsw
        ljmp    $0, $moved - LOAD + HERE

moved:  sti
        pushw   %dx                     /* the drive, by the BIOS */
        movl    $BUS0, %ebx
next:   leal    8(%ebx), %eax
        movw    $0xcf8, %dx
        outl    %eax, %dx
        movb    $0xfc, %dl
        inl     %dx, %eax
        shrl    $16, %eax
        cmpw    $IDE, %ax
        jne     other
        leal    4(%ebx), %eax
        movb    $0xf8, %dl
        outl    %eax, %dx
        movb    $0xfc, %dl
        inw     %dx, %ax
        orb     $4, %al                 /* command register: bus master */
        outw    %ax, %dx                /* 16 bits: writing to the status beside it would clear it */
other:  addw    $0x100, %bx
        jnz     next

        popw    %dx
        xorb    %dh, %dh
        movw    $0x0002, %cx            /* cylinder 0, head 0, sector 2 of every geometry */
        movw    $LOAD, %bx
        movw    $0x0201, %ax
        int     $0x13
        jc      lost
        cmpw    $0xaa55, LOAD + MAGIC
        jne     lost
        ljmp    $0, $LOAD
lost:   int     $0x18                   /* not bootable: on to the next device */
