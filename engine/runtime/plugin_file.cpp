#include "engine/runtime/plugin_file.h"

#include <dlfcn.h>
#include <elf.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <new>
#include <span>
#include <vector>

#include "engine/io/file.h"
#include "retort_abi_hash.h"

namespace retort {
namespace {

#if defined(__x86_64__)
constexpr Elf64_Half kMachine = EM_X86_64;
#elif defined(__aarch64__)
constexpr Elf64_Half kMachine = EM_AARCH64;
#endif

// A table of a file; refused if the file ends before it does.
template <class T>
std::vector<T> table(const FileReader& file, std::uint64_t offset, std::uint64_t count) {
  std::uint64_t bytes = 0, end = 0;
  const bool fits = !__builtin_mul_overflow(count, sizeof(T), &bytes) &&
                    !__builtin_add_overflow(offset, bytes, &end) && end <= file.size();
  RETORT_CHECK_AS(kBadInput, fits, "it was cut: it has ", file.size(), " bytes and needs more");
  std::vector<T> rows(count);
  file.read_at(offset, std::as_writable_bytes(std::span(rows)));
  return rows;
}

void check_dynamic(const FileReader& file, const Elf64_Phdr& where) {
  bool strings = false, symbols = false, ends = false;
  for (const Elf64_Dyn& entry :
       table<Elf64_Dyn>(file, where.p_offset, where.p_filesz / sizeof(Elf64_Dyn))) {
    strings = strings || (entry.d_tag == DT_STRTAB && entry.d_un.d_ptr != 0);
    symbols = symbols || (entry.d_tag == DT_SYMTAB && entry.d_un.d_ptr != 0);
    if ((ends = entry.d_tag == DT_NULL)) break;
  }
  RETORT_CHECK_AS(kBadInput, strings && symbols && ends, "its table of symbols is damaged");
}

void check_library(const FileReader& file) {
  constexpr const char* kNone = "it is not a shared library for this machine";
  RETORT_CHECK_AS(kBadInput, file.size() >= sizeof(Elf64_Ehdr), kNone);
  const Elf64_Ehdr head = table<Elf64_Ehdr>(file, 0, 1)[0];
  RETORT_CHECK_AS(kBadInput,
                  std::memcmp(head.e_ident, ELFMAG, SELFMAG) == 0 &&
                      head.e_ident[EI_CLASS] == ELFCLASS64 &&
                      head.e_ident[EI_DATA] == ELFDATA2LSB && head.e_type == ET_DYN,
                  kNone);
#if defined(__x86_64__) || defined(__aarch64__)
  RETORT_CHECK_AS(kBadInput, head.e_machine == kMachine, kNone);
#endif
  RETORT_CHECK_AS(kBadInput, head.e_phentsize == sizeof(Elf64_Phdr) && head.e_phnum > 0, kNone);
  bool loads = false, dynamic = false;
  for (const Elf64_Phdr& segment : table<Elf64_Phdr>(file, head.e_phoff, head.e_phnum)) {
    if (segment.p_type != PT_LOAD && segment.p_type != PT_DYNAMIC) continue;
    std::uint64_t end = 0;
    RETORT_CHECK_AS(kBadInput,
                    !__builtin_add_overflow(segment.p_offset, segment.p_filesz, &end) &&
                        end <= file.size() && segment.p_filesz <= segment.p_memsz,
                    "it was cut: it has ", file.size(), " bytes and needs ", end);
    loads = loads || segment.p_type == PT_LOAD;
    if (segment.p_type == PT_DYNAMIC) dynamic = true, check_dynamic(file, segment);
  }
  RETORT_CHECK_AS(kBadInput, loads && dynamic, kNone);
  if (head.e_shoff == 0) return;  // stripped of its sections
  // They stand at the end, so that they also tell of a tail that was never written.
  RETORT_CHECK_AS(kBadInput, head.e_shentsize == sizeof(Elf64_Shdr), kNone);
  const auto sections = table<Elf64_Shdr>(file, head.e_shoff, head.e_shnum);
  RETORT_CHECK_AS(
      kBadInput,
      head.e_shstrndx < sections.size() && sections[head.e_shstrndx].sh_type == SHT_STRTAB,
      "its table of sections is damaged");
}

// True if no function of the runtime was left out.
bool is_complete(const CudaRuntime& runtime) {
  using Functions = std::array<void*, sizeof(CudaRuntime) / sizeof(void*)>;
  static_assert(sizeof(Functions) == sizeof(CudaRuntime));
  const auto functions = std::bit_cast<Functions>(runtime);
  return std::none_of(functions.begin(), functions.end(), [](void* f) { return f == nullptr; });
}

// "" or the sentence.
std::string bind(const PluginEntry entry, const std::string& broken, CudaRuntime* runtime) {
  const PluginInfo* const info = entry();
  if (info == nullptr || info->abi_hash == nullptr || info->open == nullptr)
    return broken + "it is not a Retort plug-in: it does not say how it was built";
  if (std::strncmp(info->abi_hash, RETORT_ABI_HASH, sizeof RETORT_ABI_HASH) != 0)
    return broken + "it was built from other headers than this library: rebuild both";
  // Declared noexcept; called as if it were not, since that is only a promise.
  Status (*const open)(CudaRuntime*) = info->open;
  if (const Status status = open(runtime); status.code != ErrorCode::kOk) return status.message;
  if (!is_complete(*runtime)) return broken + "it is not whole: it leaves functions out";
  return "";
}

}  // namespace

std::string plugin_file_problem(const std::string& path) {
  try {
    check_library(FileReader(path));
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

std::string open_plugin(const std::string& path, CudaRuntime* runtime) {
  const std::string broken = "no CUDA plug-in: " + escaped(path, 4096) + ": ";
  // With a slash, so that the loader opens this file and does not look for another one.
  const std::string file = path.find('/') == std::string::npos ? "./" + path : path;
  if (const std::string problem = plugin_file_problem(file); !problem.empty())
    return problem.starts_with(escaped(path, 4096)) ? "no CUDA plug-in: " + problem
                                                    : broken + problem;
  void* const library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return join("no CUDA plug-in: ", dlerror());
  const auto entry = reinterpret_cast<PluginEntry>(dlsym(library, "retort_plugin"));
  if (entry == nullptr) return broken + "it is not a Retort plug-in";
  std::string problem;
  try {
    problem = bind(entry, broken, runtime);
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    problem = join(broken, "it failed when it was asked: ", error.what());
  } catch (...) {
    problem = broken + "it failed when it was asked";
  }
  if (!problem.empty()) *runtime = {};
  return problem;
}

}  // namespace retort
