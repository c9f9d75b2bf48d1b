/* x86_64.S - the one step of making a thread that C cannot express; see arch/arch.h for what each
 * function promises, and thread.md for why.
 *
 * Of all registers the kernel changes rax, rcx and r11; the child starts with a copy of the rest,
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

/* ---- Transfer -------------------------------------------------------------------------------- */

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

	.section .note.GNU-stack, "", @progbits
