#include "engine/runtime/plugin_file.h"

#include <dlfcn.h>
#include <elf.h>

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

}  // namespace

std::string plugin_file_problem(const std::string& path) {
  try {
    check_library(FileReader(path));
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

std::string library_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&library_folder), &info) == 0 ||
      info.dli_fname == nullptr)
    return ".";
  const std::string path = info.dli_fname;
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

std::string open_plugin_file(const std::string& path, const std::string& kind, const char* entry,
                             const std::function<std::string(void*)>& bind) {
  const std::string none = "no " + kind + " plug-in: ", name = escaped(path, 4096);
  // With a slash, so that the loader opens this file and does not look for another one.
  const std::string file = path.find('/') == std::string::npos ? "./" + path : path;
  if (const std::string problem = plugin_file_problem(file); !problem.empty())
    return problem.starts_with(name) ? none + problem : join(none, name, ": ", problem);
  void* const library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return join(none, dlerror());
  void* const found = dlsym(library, entry);
  if (found == nullptr) return join(none, name, ": it is not a Retort plug-in");
  std::string problem;
  try {
    problem = bind(found);
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    problem = join("it failed when it was asked: ", error.what());
  } catch (...) {
    problem = "it failed when it was asked";
  }
  return problem.empty() ? "" : join(none, name, ": ", problem);
}

std::string open_plugin(const std::string& path, CudaRuntime* runtime) {
  std::string said;  // by the plug-in, as a sentence of its own
  std::string problem = open_plugin_file(path, "CUDA", "retort_plugin", [&](void* found) {
    const PluginInfo* const info = reinterpret_cast<PluginEntry>(found)();
    if (info == nullptr || info->abi_hash == nullptr || info->open == nullptr)
      return std::string("it is not a Retort plug-in: it does not say how it was built");
    if (std::strncmp(info->abi_hash, RETORT_ABI_HASH, sizeof RETORT_ABI_HASH) != 0)
      return std::string(kOtherHeaders);
    // Declared noexcept; called as if it were not, since that is only a promise.
    Status (*const open)(CudaRuntime*) = info->open;
    const Status status = open(runtime);
    if (status.code != ErrorCode::kOk) return said = status.message;
    return std::string(is_complete(*runtime) ? "" : kNotWhole);
  });
  if (!problem.empty()) *runtime = {};
  return said.empty() ? problem : said;
}

}  // namespace retort
