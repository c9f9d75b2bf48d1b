/* aarch64.S - the one step of making a thread that C cannot express, and the switch from one stack to
 * another; see arch/arch.h for what each function promises, and thread.md for the threads' why.
 *
 * At a system call: of all registers the kernel changes x0 only; the child starts with a copy of the rest, but for sp,
 * which is the top of the stack that it was given.
 */
#include <asm/unistd.h>

/* struct clone_args of <linux/sched.h> */
#define ARGS_FLAGS 0
#define ARGS_CHILD_TID 16
#define ARGS_PARENT_TID 24
#define ARGS_STACK 40 /* followed by stack_size */
#define ARGS_TLS 56

	.macro	function name
	.globl	\name
	.hidden	\name
	.type	\name, @function
	.p2align 4
\name:
	.cfi_startproc
	bti	c
	.endm

	.macro	end_function name
	.cfi_endproc
	.size	\name, . - \name
	.endm

	/* clone3(args [x0], size [x1]) */
	.macro	call_clone3
	mov	x8, __NR_clone3
	svc	0
	.endm

	/* clone(flags [x0], stack [x1], parent_tid [x2], tls [x3], child_tid [x4]), from args [x0];
	 * changes x5, too */
	.macro	call_clone
	ldp	x1, x5, [x0, ARGS_STACK]
	add	x1, x1, x5
	ldr	x2, [x0, ARGS_PARENT_TID]
	ldr	x3, [x0, ARGS_TLS]
	ldr	x4, [x0, ARGS_CHILD_TID]
	ldr	x0, [x0, ARGS_FLAGS]
	mov	x8, __NR_clone
	svc	0
	.endm

	/* exit(0) */
	.macro	call_exit
	mov	x0, 0
	mov	x8, __NR_exit
	svc	0
	brk	0
	.endm

/* ---- Transfer -------------------------------------------------------------------------------- */

	/* fn and arg wait in x6 and x7 for the child. x19 carries the incubator's stack pointer into the
	 * child, through fn (it is callee-saved), and back to the point where the child puts it into sp.
	 * What else is callee-saved, x20 to x28 and d8 to d15, gets there by itself: the child has a copy,
	 * and fn keeps it. The CFI counts from x19 for the same reason: a backtrace from the worker goes
	 * through here into the incubator's frames and ends in libc's thread entry, as pthread_exit's
	 * forced unwinding needs. */
	.macro	begin_transfer fn, arg
	stp	x29, x30, [sp, -32]!
	.cfi_adjust_cfa_offset 32
	.cfi_rel_offset x29, 0
	.cfi_rel_offset x30, 8
	str	x19, [sp, 16]
	.cfi_rel_offset x19, 16
	mov	x19, sp
	.cfi_def_cfa_register x19
	mov	x6, \fn
	mov	x7, \arg
	.endm

	.macro	end_transfer
	cbz	x0, .Lchild\@
	tbnz	x0, 63, .Lreturn\@	/* no thread was made: return -errno, still as the incubator */

	/* The incubator's end. Its frames now belong to the child, which waits for the kernel's word
	 * that this thread is gone: from here on, not one byte of this stack may be touched. */
	call_exit

.Lchild\@:
	mov	x29, 0			/* frame-pointer walks end here; the CFI goes on */
	mov	x0, x7
	blr	x6
	mov	x0, 0

.Lreturn\@:
	mov	sp, x19			/* for the child: back into the incubator's frame */
	.cfi_def_cfa_register sp
	ldr	x19, [sp, 16]
	.cfi_restore x19
	ldp	x29, x30, [sp], 32
	.cfi_restore x29
	.cfi_restore x30
	.cfi_adjust_cfa_offset -32
	ret
	.endm

	.text

/* int arch_clone3_transfer(struct clone_args *args [x0], size_t size [x1],
 *                          void (*fn)(void *) [x2], void *arg [x3]) */
	function arch_clone3_transfer
	begin_transfer fn=x2, arg=x3
	call_clone3
	end_transfer
	end_function arch_clone3_transfer

/* int arch_clone_transfer(struct clone_args *args [x0], void (*fn)(void *) [x1], void *arg [x2]) */
	function arch_clone_transfer
	begin_transfer fn=x1, arg=x2
	call_clone
	end_transfer
	end_function arch_clone_transfer

/* ---- Bare threads ---------------------------------------------------------------------------- */

	.macro	end_bare
	cbz	x0, bare_entry
	ret
	.endm

/* int arch_clone3_bare(struct clone_args *args [x0], size_t size [x1]) */
	function arch_clone3_bare
	call_clone3
	end_bare
	end_function arch_clone3_bare

/* int arch_clone_bare(struct clone_args *args [x0]) */
	function arch_clone_bare
	call_clone
	end_bare
	end_function arch_clone_bare

/* Where a bare thread begins and ends: sp points to its struct arch_bare. */
	.type	bare_entry, @function
	.p2align 4
bare_entry:
	.cfi_startproc
	.cfi_undefined x30		/* nobody called this: unwinding ends here */
	mov	x29, 0
	ldp	x1, x0, [sp], 16	/* fn, arg */
	blr	x1
	call_exit
	end_function bare_entry

/* ---- Switching stacks ------------------------------------------------------------------------ */

/* What arch_switch leaves on a stack, from its stack pointer upwards: x29, x30 (where it returns to),
 * x19 to x28, d8 to d15, fpcr, and 8 bytes that keep sp a multiple of 16. The CFI holds on either side
 * of the change of sp, as both stacks look the same there. */
#define SWITCH_FRAME 176
#define SWITCH_X19 16
#define SWITCH_D8 96
#define SWITCH_FPCR 160

	.macro	save_pair first, second, offset
	stp	\first, \second, [sp, \offset]
	.cfi_rel_offset \first, \offset
	.cfi_rel_offset \second, \offset + 8
	.endm

	.macro	restore_pair first, second, offset
	ldp	\first, \second, [sp, \offset]
	.cfi_restore \first
	.cfi_restore \second
	.endm

	.macro	for_each_pair what
	\what	x19, x20, SWITCH_X19
	\what	x21, x22, SWITCH_X19 + 16
	\what	x23, x24, SWITCH_X19 + 32
	\what	x25, x26, SWITCH_X19 + 48
	\what	x27, x28, SWITCH_X19 + 64
	\what	d8, d9, SWITCH_D8
	\what	d10, d11, SWITCH_D8 + 16
	\what	d12, d13, SWITCH_D8 + 32
	\what	d14, d15, SWITCH_D8 + 48
	.endm

/* void arch_switch(void **from [x0], void *to [x1]) */
	function arch_switch
	sub	sp, sp, SWITCH_FRAME
	.cfi_adjust_cfa_offset SWITCH_FRAME
	save_pair x29, x30, 0
	for_each_pair save_pair
	mrs	x2, fpcr
	str	x2, [sp, SWITCH_FPCR]
	mov	x2, sp
	str	x2, [x0]
	mov	sp, x1
	ldr	x2, [sp, SWITCH_FPCR]
	msr	fpcr, x2
	for_each_pair restore_pair
	restore_pair x29, x30, 0
	add	sp, sp, SWITCH_FRAME
	.cfi_adjust_cfa_offset -SWITCH_FRAME
	ret
	end_function arch_switch

/* void *arch_prepare(void *stack_top [x0], void (*fn)(void *) [x1], void *arg [x2]) */
	function arch_prepare
	and	x0, x0, -16
	sub	x0, x0, SWITCH_FRAME
	adr	x3, .Lstack_begin
	stp	xzr, x3, [x0]		/* frame-pointer walks end here */
	stp	x1, x2, [x0, SWITCH_X19]
	str	xzr, [x0, SWITCH_FPCR]	/* what a process starts with */
	ret
	end_function arch_prepare

/* Where a prepared stack begins: fn is in x19, arg in x20. */
	.type	stack_entry, @function
	.p2align 4
stack_entry:
	.cfi_startproc
	.cfi_undefined x30		/* nobody called this: unwinding ends here */
	nop				/* an unwinder looks for what is before a return address */
.Lstack_begin:
	mov	x0, x20
	blr	x19
	brk	0
	end_function stack_entry

/* What is called through a pointer here begins with a landing pad, so code that is protected by these
 * may be linked with this: GNU_PROPERTY_AARCH64_FEATURE_1_BTI. Shadow stacks (GCS) are not claimed: a
 * worker returns through frames of its incubator, which had another one. */
	.section .note.gnu.property, "a"
	.p2align 3
	.word	4, 16, 5		/* lengths of name and content, NT_GNU_PROPERTY_TYPE_0 */
	.string	"GNU"
	.word	0xc0000000, 4, 1, 0	/* GNU_PROPERTY_AARCH64_FEATURE_1_AND, its length, BTI, padding */

	.section .note.GNU-stack, "", @progbits
