/* x86_64.S - the one step of making a thread that C cannot express, and the switch from one stack to
 * another; see arch/arch.h for what each function promises, and thread.md for the threads' why.
 *
 * At a system call: of all registers the kernel changes rax, rcx and r11; the child starts with a copy of the rest,
 * but for rsp, which is the top of the stack that it was given.
 */
#include <asm/unistd_64.h>

/* struct clone_args of <linux/sched.h> */
#define ARGS_FLAGS 0
#define ARGS_CHILD_TID 16
#define ARGS_PARENT_TID 24
#define ARGS_STACK 40
#define ARGS_STACK_SIZE 48
#define ARGS_TLS 56

	.macro	function name
	.globl	\name
	.hidden	\name
	.type	\name, @function
	.p2align 4
\name:
	.cfi_startproc
	endbr64
	.endm

	.macro	end_function name
	.cfi_endproc
	.size	\name, . - \name
	.endm

	/* clone3(args [rdi], size [rsi]) */
	.macro	call_clone3
	movl	$__NR_clone3, %eax
	syscall
	.endm

	/* clone(flags [rdi], stack [rsi], parent_tid [rdx], child_tid [r10], tls [r8]), from args [rdi] */
	.macro	call_clone
	movq	ARGS_STACK(%rdi), %rsi
	addq	ARGS_STACK_SIZE(%rdi), %rsi
	movq	ARGS_PARENT_TID(%rdi), %rdx
	movq	ARGS_CHILD_TID(%rdi), %r10
	movq	ARGS_TLS(%rdi), %r8
	movq	ARGS_FLAGS(%rdi), %rdi
	movl	$__NR_clone, %eax
	syscall
	.endm

	/* exit(0) */
	.macro	call_exit
	xorl	%edi, %edi
	movl	$__NR_exit, %eax
	syscall
	hlt
	.endm

	.macro	save register
	pushq	%\register
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset \register, 0
	.endm

	.macro	restore register
	popq	%\register
	.cfi_adjust_cfa_offset -8
	.cfi_restore \register
	.endm

/* ---- Transfer -------------------------------------------------------------------------------- */

	/* rbx carries the incubator's stack pointer into the child, through fn (it is callee-saved), and
	 * back to the point where the child puts it into rsp. The CFI counts from rbx for the same
	 * reason: a backtrace from the worker goes through here into the incubator's frames and ends in
	 * libc's thread entry, as pthread_exit's forced unwinding needs. */
	.macro	begin_transfer fn, arg
	save	rbx
	save	rbp
	save	r12
	save	r13
	save	r14
	save	r15
	movq	%rsp, %rbx
	.cfi_def_cfa_register rbx
	movq	%\fn, %r12
	movq	%\arg, %r13
	.endm

	.macro	end_transfer
	testq	%rax, %rax
	jz	.Lchild\@
	js	.Lreturn\@		/* no thread was made: return -errno, still as the incubator */

	/* The incubator's end. Its frames now belong to the child, which waits for the kernel's word
	 * that this thread is gone: from here on, not one byte of this stack may be touched. */
	call_exit

.Lchild\@:
	xorl	%ebp, %ebp		/* frame-pointer walks end here; the CFI goes on */
	movq	%r13, %rdi
	call	*%r12
	xorl	%eax, %eax

.Lreturn\@:
	movq	%rbx, %rsp		/* for the child: back into the incubator's frame */
	.cfi_def_cfa_register rsp
	restore	r15
	restore	r14
	restore	r13
	restore	r12
	restore	rbp
	restore	rbx
	ret
	.endm

	.text

/* int arch_clone3_transfer(struct clone_args *args [rdi], size_t size [rsi],
 *                          void (*fn)(void *) [rdx], void *arg [rcx]) */
	function arch_clone3_transfer
	begin_transfer fn=rdx, arg=rcx
	call_clone3
	end_transfer
	end_function arch_clone3_transfer

/* int arch_clone_transfer(struct clone_args *args [rdi], void (*fn)(void *) [rsi], void *arg [rdx]) */
	function arch_clone_transfer
	begin_transfer fn=rsi, arg=rdx
	call_clone
	end_transfer
	end_function arch_clone_transfer

/* ---- Bare threads ---------------------------------------------------------------------------- */

	.macro	end_bare
	testq	%rax, %rax
	jz	bare_entry
	ret
	.endm

/* int arch_clone3_bare(struct clone_args *args [rdi], size_t size [rsi]) */
	function arch_clone3_bare
	call_clone3
	end_bare
	end_function arch_clone3_bare

/* int arch_clone_bare(struct clone_args *args [rdi]) */
	function arch_clone_bare
	call_clone
	end_bare
	end_function arch_clone_bare

/* Where a bare thread begins and ends: rsp points to its struct arch_bare. */
	.type	bare_entry, @function
	.p2align 4
bare_entry:
	.cfi_startproc
	.cfi_undefined rip		/* nobody called this: unwinding ends here */
	xorl	%ebp, %ebp
	popq	%rax			/* fn */
	popq	%rdi			/* arg; rsp is again a multiple of 16 */
	call	*%rax
	call_exit
	end_function bare_entry

/* ---- Switching stacks ------------------------------------------------------------------------ */

/* What arch_switch leaves on a stack, from its stack pointer upwards:
 *
 *      mxcsr, x87 control word | r15 | r14 | r13 | r12 | rbp | rbx | where it returns to
 *
 * The CFI holds on either side of the change of rsp, as both stacks look the same there. */
#define SWITCH_FRAME 64
#define SWITCH_FLOATS 0
#define SWITCH_R12 32
#define SWITCH_RBP 40
#define SWITCH_RBX 48
#define SWITCH_RETURN 56

/* What a process starts with: all exceptions masked, rounding to nearest (0x1f80; 0x037f). */
#define FLOATS_DEFAULT 0x037f00001f80

/* void arch_switch(void **from [rdi], void *to [rsi]) */
	function arch_switch
	save	rbx
	save	rbp
	save	r12
	save	r13
	save	r14
	save	r15
	subq	$8, %rsp
	.cfi_adjust_cfa_offset 8
	stmxcsr	(%rsp)
	fnstcw	4(%rsp)
	movq	%rsp, (%rdi)
	movq	%rsi, %rsp
	ldmxcsr	(%rsp)
	fldcw	4(%rsp)
	addq	$8, %rsp
	.cfi_adjust_cfa_offset -8
	restore	r15
	restore	r14
	restore	r13
	restore	r12
	restore	rbp
	restore	rbx
	ret
	end_function arch_switch

/* void *arch_prepare(void *stack_top [rdi], void (*fn)(void *) [rsi], void *arg [rdx]) */
	function arch_prepare
	andq	$-16, %rdi
	leaq	-SWITCH_FRAME(%rdi), %rax
	movabsq	$FLOATS_DEFAULT, %rcx
	movq	%rcx, SWITCH_FLOATS(%rax)
	movq	%rdx, SWITCH_R12(%rax)
	movq	$0, SWITCH_RBP(%rax)	/* frame-pointer walks end here */
	movq	%rsi, SWITCH_RBX(%rax)
	leaq	.Lstack_begin(%rip), %rcx
	movq	%rcx, SWITCH_RETURN(%rax)
	ret
	end_function arch_prepare

/* Where a prepared stack begins: fn is in rbx, arg in r12, and rsp is a multiple of 16. */
	.type	stack_entry, @function
	.p2align 4
stack_entry:
	.cfi_startproc
	.cfi_undefined rip		/* nobody called this: unwinding ends here */
	nop				/* an unwinder looks for what is before a return address */
.Lstack_begin:
	movq	%r12, %rdi
	call	*%rbx
	ud2
	end_function stack_entry

	.section .note.GNU-stack, "", @progbits
