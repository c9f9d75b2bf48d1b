/* x86_64.S - the one step of making a worker that C cannot express; see arch/arch.h for what it
 * promises, and thread.h for why.
 *
 * int arch_clone3_transfer(struct clone_args *args [rdi], size_t size [rsi],
 *                          void (*fn)(void *) [rdx], void *arg [rcx])
 *
 * Of all registers the kernel changes rax, rcx and r11; the child starts with a copy of the rest,
 * but for rsp. So rbx carries the incubator's stack pointer into the child, through fn (it is
 * callee-saved), and back to the point where the child puts it into rsp. The CFI counts from rbx
 * for the same reason: a backtrace from the worker goes through here into the incubator's frames
 * and ends in libc's thread entry, as pthread_exit's forced unwinding needs.
 */
#include <asm/unistd_64.h>

	.text
	.globl	arch_clone3_transfer
	.hidden	arch_clone3_transfer
	.type	arch_clone3_transfer, @function
	.p2align 4
arch_clone3_transfer:
	.cfi_startproc
	endbr64
	pushq	%rbx
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset rbx, 0
	pushq	%rbp
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset rbp, 0
	pushq	%r12
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset r12, 0
	pushq	%r13
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset r13, 0
	pushq	%r14
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset r14, 0
	pushq	%r15
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset r15, 0
	movq	%rsp, %rbx
	.cfi_def_cfa_register rbx
	movq	%rdx, %r12		/* fn */
	movq	%rcx, %r13		/* arg */
	movl	$__NR_clone3, %eax
	syscall
	testq	%rax, %rax
	jz	.Lchild
	js	.Lreturn		/* no thread was made: return -errno, still as the incubator */

	/* The incubator's end. Its frames now belong to the child, which waits for the kernel's word
	 * that this thread is gone: from here on, not one byte of this stack may be touched. */
	xorl	%edi, %edi
	movl	$__NR_exit, %eax
	syscall
	hlt

.Lchild:
	xorl	%ebp, %ebp		/* frame-pointer walks end here; the CFI goes on */
	movq	%r13, %rdi
	call	*%r12			/* the kernel has set rsp to the top of the child's stack */
	xorl	%eax, %eax

.Lreturn:
	movq	%rbx, %rsp		/* for the child: back into the incubator's frame */
	.cfi_def_cfa_register rsp
	popq	%r15
	.cfi_adjust_cfa_offset -8
	.cfi_restore r15
	popq	%r14
	.cfi_adjust_cfa_offset -8
	.cfi_restore r14
	popq	%r13
	.cfi_adjust_cfa_offset -8
	.cfi_restore r13
	popq	%r12
	.cfi_adjust_cfa_offset -8
	.cfi_restore r12
	popq	%rbp
	.cfi_adjust_cfa_offset -8
	.cfi_restore rbp
	popq	%rbx
	.cfi_adjust_cfa_offset -8
	.cfi_restore rbx
	ret
	.cfi_endproc
	.size	arch_clone3_transfer, . - arch_clone3_transfer

	.section .note.GNU-stack, "", @progbits
