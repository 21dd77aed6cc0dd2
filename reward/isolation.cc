#include "reward/isolation.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstdio>
#include <vector>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TEMPER_SANITIZED 1  // sanitizers map terabytes and make calls of their own
#else
#define TEMPER_SANITIZED 0
#endif

namespace temper::reward {
namespace {

#if defined(__x86_64__)
constexpr std::uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr std::uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#else
constexpr std::uint32_t kArchitecture = 0;
#endif

// Beyond Lua's own memory: the sample as JSON, the frames, the allocator's slack.
constexpr rlim_t kSlackBytes = rlim_t{208} << 20;
// Lua's cap, twice for its arena (reward/script.cc) and once for the copy of what the chunk left.
constexpr rlim_t kCaps = 3;

rlim_t AddressSpace() {
  // Field 1 of statm: pages mapped now.
  long pages = 0;
  FILE* file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr) return 0;
  const bool read = std::fscanf(file, "%ld", &pages) == 1;
  std::fclose(file);
  return read ? static_cast<rlim_t>(pages) * static_cast<rlim_t>(sysconf(_SC_PAGESIZE)) : 0;
}

bool Limit(int resource, rlim_t value) {
  const rlimit limit{value, value};
  return setrlimit(static_cast<__rlimit_resource_t>(resource), &limit) == 0;
}

constexpr std::uint32_t ArgumentOffset(int index) {
  return static_cast<std::uint32_t>(offsetof(seccomp_data, args)) +
         static_cast<std::uint32_t>(index) * 8;  // the low half: little-endian
}

/// A classic BPF program: allowed calls return early, everything else kills the process.
class Filter {
 public:
  Filter() {
    Load(offsetof(seccomp_data, arch));
    Jump(BPF_JEQ, kArchitecture, 1, 0);
    Kill();
    Load(offsetof(seccomp_data, nr));
#if defined(__x86_64__)
    Jump(BPF_JGE, 0x40000000, 0, 1);  // the x32 calls have other numbers
    Kill();
#endif
  }
  void Allow(long call) {
    Jump(BPF_JEQ, static_cast<std::uint32_t>(call), 0, 1);
    Accept();
  }
  /// Only when argument `index` is `value`.
  void AllowEqual(long call, int index, std::uint32_t value) {
    Jump(BPF_JEQ, static_cast<std::uint32_t>(call), 0, 4);
    Load(ArgumentOffset(index));
    Jump(BPF_JEQ, value, 0, 1);
    Accept();
    Kill();
  }
  /// Only when argument `index` has none of `bits`.
  void AllowWithout(long call, int index, std::uint32_t bits) {
    Jump(BPF_JEQ, static_cast<std::uint32_t>(call), 0, 4);
    Load(ArgumentOffset(index));
    Jump(BPF_JSET, bits, 1, 0);
    Accept();
    Kill();
  }
  /// mmap: anonymous memory that cannot be executed.
  void AllowAnonymous(long call) {
    Jump(BPF_JEQ, static_cast<std::uint32_t>(call), 0, 6);
    Load(ArgumentOffset(2));
    Jump(BPF_JSET, PROT_EXEC, 3, 0);
    Load(ArgumentOffset(3));
    Jump(BPF_JSET, MAP_ANONYMOUS, 0, 1);
    Accept();
    Kill();
  }
  bool Install() {
    Kill();
    const sock_fprog program{static_cast<unsigned short>(code_.size()), code_.data()};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
  }

 private:
  void Load(std::uint32_t offset) { code_.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset)); }
  void Jump(std::uint16_t test, std::uint32_t value, std::uint8_t yes, std::uint8_t no) {
    code_.push_back(BPF_JUMP(static_cast<std::uint16_t>(BPF_JMP | BPF_K | test), value, yes, no));
  }
  void Accept() { code_.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)); }
  void Kill() { code_.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)); }
  std::vector<sock_filter> code_;
};

bool FilterCalls(int channel) {
  if (kArchitecture == 0) return false;
  Filter filter;
  const auto fd = static_cast<std::uint32_t>(channel);
  filter.AllowEqual(__NR_read, 0, fd);
  filter.AllowEqual(__NR_write, 0, fd);
  filter.AllowAnonymous(__NR_mmap);
  filter.AllowWithout(__NR_mprotect, 2, PROT_EXEC);
  for (long call : {__NR_munmap, __NR_mremap, __NR_brk, __NR_madvise, __NR_futex, __NR_exit,
                    __NR_exit_group, __NR_rt_sigreturn, __NR_clock_gettime}) {
    filter.Allow(call);
  }
  return filter.Install();
}

void Note(const char* what, bool done, std::string* missing) {
  if (!done) *missing += (missing->empty() ? "" : ", ") + std::string(what);
}

}  // namespace

std::string Isolate(int channel, int memory_mib) {
  std::string missing;
  const rlim_t now = AddressSpace();
  const rlim_t cap = now + kCaps * (static_cast<rlim_t>(memory_mib) << 20) + kSlackBytes;
  Note("RLIMIT_CORE", Limit(RLIMIT_CORE, 0), &missing);
  Note("RLIMIT_FSIZE", Limit(RLIMIT_FSIZE, 0), &missing);
  Note("RLIMIT_NPROC", Limit(RLIMIT_NPROC, 0), &missing);
  Note("RLIMIT_NOFILE", Limit(RLIMIT_NOFILE, 0), &missing);
  Note("no_new_privs", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, &missing);
  const bool sanitized = TEMPER_SANITIZED != 0;
  Note("RLIMIT_AS", !sanitized && now > 0 && Limit(RLIMIT_AS, cap), &missing);
  Note("seccomp", !sanitized && FilterCalls(channel), &missing);
  return missing;
}

}  // namespace temper::reward
