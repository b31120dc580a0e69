/* Let a process take this processor for an older one: LD_PRELOAD=… NEBULA_CPU=avx2.

   XNNPACK asks the CPUID instruction itself which kernels it may use, and has no switch.
   Linux can let CPUID fault (arch_prctl ARCH_SET_CPUID, x86-64 with cpuid_fault in
   /proc/cpuinfo); the handler answers as the processor does, less what NEBULA_CPU
   ("avx2": no AVX-512, AMX or VNNI; "avx": no AVX2 or FMA either) leaves out.
   Built and used by tests/portable.py only. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012

static int without_avx2;

static long let_cpuid(int allowed) {
    return syscall(SYS_arch_prctl, ARCH_SET_CPUID, allowed);
}

static void leave_out(unsigned leaf, unsigned sub, unsigned *a, unsigned *b, unsigned *c,
                      unsigned *d) {
    if (leaf == 7 && sub == 0) {
        *b &= ~0xDC230000u;                 /* AVX-512 F DQ IFMA PF ER CD BW VL */
        *c &= ~0x00005F42u;                 /* VBMI VBMI2 GFNI VAES VPCLMUL VNNI … */
        *d &= ~0x03C0010Cu;                 /* 4VNNIW 4FMAPS VP2INTERSECT AMX FP16 */
        if (without_avx2) *b &= ~0x00000128u; /* BMI1 AVX2 BMI2 */
    } else if (leaf == 7) {
        *a = *b = *c = *d = 0;              /* AVX-VNNI, AVX512-BF16, AMX-FP16 … */
    } else if (leaf == 0x1D || leaf == 0x1E || leaf == 0x24) {
        *a = *b = *c = *d = 0;              /* AMX tiles, AVX10 */
    } else if (leaf == 1 && without_avx2) {
        *c &= ~0x20001000u;                 /* FMA F16C */
    }
}

static void answer(int number, siginfo_t *info, void *context) {
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *code = (const unsigned char *)regs[REG_RIP];
    unsigned leaf, sub, a, b, c, d;
    (void)info;
    if (code[0] != 0x0F || code[1] != 0xA2) {   /* a true fault: end as usual */
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    leaf = (unsigned)regs[REG_RAX];
    sub = (unsigned)regs[REG_RCX];
    let_cpuid(1);
    __cpuid_count(leaf, sub, a, b, c, d);
    let_cpuid(0);
    leave_out(leaf, sub, &a, &b, &c, &d);
    regs[REG_RAX] = a;
    regs[REG_RBX] = b;
    regs[REG_RCX] = c;
    regs[REG_RDX] = d;
    regs[REG_RIP] += 2;
}

/* Nobody else may take the signal over (Python's faulthandler would). */
int sigaction(int number, const struct sigaction *new, struct sigaction *old) {
    static int (*real)(int, const struct sigaction *, struct sigaction *);
    if (!real) real = dlsym(RTLD_NEXT, "sigaction");
    if (number == SIGSEGV && new && new->sa_sigaction != answer) {
        if (old) memset(old, 0, sizeof *old);
        return 0;
    }
    return real(number, new, old);
}

__attribute__((constructor)) static void begin(void) {
    const char *level = getenv("NEBULA_CPU");
    struct sigaction action;
    if (!level) return;
    without_avx2 = !strcmp(level, "avx");
    memset(&action, 0, sizeof action);
    action.sa_sigaction = answer;
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    sigaction(SIGSEGV, &action, NULL);
    if (let_cpuid(0)) _exit(97);
}
