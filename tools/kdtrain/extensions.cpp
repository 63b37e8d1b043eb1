#include "tools/kdtrain/extensions.h"

#include <dlfcn.h>
#include <elf.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <string_view>

#include "curriculum/pacing/pacing.h"
#include "curriculum/scoring/score.h"
#include "distill/terms/registry.h"
#include "engine/io/file.h"
#include "nn/data/registry.h"
#include "nn/extension.h"
#include "nn/models/registry.h"

namespace retort::tools {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 30;
#if defined(__aarch64__)
constexpr Elf64_Half kMachine = EM_AARCH64;
#else
constexpr Elf64_Half kMachine = EM_X86_64;
#endif

std::vector<std::string>& loaded() {
  static std::vector<std::string> all;
  return all;
}

template <class... Parts>
[[noreturn]] void refuse(const std::string& path, const Parts&... parts) {
  fail(ErrorCode::kBadInput, "--load ", escaped(path, 200), ": ", parts...);
}

// The loader maps what the headers promise: of a file that was cut, it would read past the end.
void check_shared_library(const std::string& path, std::string_view bytes) {
  Elf64_Ehdr head;
  if (bytes.size() < sizeof head || std::memcmp(bytes.data(), ELFMAG, SELFMAG) != 0)
    refuse(path, "not a shared library (no ELF file)");
  std::memcpy(&head, bytes.data(), sizeof head);
  if (head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_ident[EI_DATA] != ELFDATA2LSB ||
      head.e_machine != kMachine)
    refuse(path, "a library of another machine");
  if (head.e_type != ET_DYN) refuse(path, "not a shared library (an ELF file of another type)");
  const std::uint64_t size = bytes.size();
  const auto within = [size](std::uint64_t offset, std::uint64_t length) {
    return offset <= size && length <= size - offset;
  };
  constexpr const char* kCut = "the file is cut short";
  if (head.e_phentsize != sizeof(Elf64_Phdr) ||
      !within(head.e_phoff, std::uint64_t{head.e_phnum} * sizeof(Elf64_Phdr)))
    refuse(path, kCut);
  for (Elf64_Half i = 0; i < head.e_phnum; ++i) {
    Elf64_Phdr part;
    std::memcpy(&part, bytes.data() + head.e_phoff + i * sizeof part, sizeof part);
    if (!within(part.p_offset, part.p_filesz)) refuse(path, kCut);
  }
}

void check_abi(const std::string& path, std::string_view bytes) {
  constexpr std::string_view kMark = RETORT_EXTENSION_MARK, kOurs = RETORT_EXTENSION_ABI;
  const std::size_t at = bytes.find(kMark);
  if (at == std::string_view::npos)
    refuse(path, "no extension of Retort (it has no RETORT_EXTENSION, see nn/extension.h)");
  const std::string_view rest = bytes.substr(at, kOurs.size() + 100);
  const std::string_view theirs = rest.substr(0, rest.find('\0'));
  if (theirs != kOurs)
    refuse(
        path, "built against another Retort: rebuild it against the installed headers; expected '",
        kOurs.substr(kMark.size()), "', found '", escaped(theirs.substr(kMark.size()), 300), "'");
}

std::string& opening() {
  static std::string path;
  return path;
}

// A global object of the library threw: whether that ends in std::terminate or passes the system's
// loader is not defined, nor what state it leaves the loader in. So nothing is unwound any more.
[[noreturn]] void refuse_opening() {
  std::fprintf(stderr, "kdtrain: error[RT0314]: --load %s: it threw while it was opened\n",
               opening().c_str());
  std::_Exit(static_cast<int>(ErrorCode::kBadInput));
}

void* open_library(const std::string& path, const std::string& file) {
  opening() = escaped(path, 200);
  const std::terminate_handler before = std::set_terminate(refuse_opening);
  try {
    // volatile: dlopen is declared not to throw, and the catch below would be left out.
    void* (*volatile const open)(const char*, int) = dlopen;
    void* const library = open(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    std::set_terminate(before);
    return library;
  } catch (...) {
    refuse_opening();
  }
}

bool is_key(std::string_view text) {
  constexpr std::string_view kMay = "abcdefghijklmnopqrstuvwxyz0123456789_";
  return !text.empty() && text[0] >= 'a' && text[0] <= 'z' &&
         text.find_first_not_of(kMay) == std::string_view::npos;
}

// What a recipe calls must be there: a row without it would be met in the middle of a run.
template <class Row, class Function>
void check_rows(const std::string& path, const char* what, const nn::Registry<Row>& registry,
                Function Row::*function, const char* function_name) {
  for (const auto& row : registry.rows())
    if (!((*row).*function))
      refuse(path, "its rows were refused: the ", what, " '", escaped(row->names.front()),
             "' has no function `", function_name, "`");
}

// Options become keys of recipes.
template <class Row>
void check_options(const std::string& path, const char* what, const nn::Registry<Row>& registry,
                   std::vector<nn::OptionSpec> Row::*options = &Row::options) {
  for (const auto& row : registry.rows())
    for (const nn::OptionSpec& spec : (*row).*options) {
      const std::string whose = join("its rows were refused: the option '", escaped(spec.key),
                                     "' of the ", what, " '", escaped(row->names.front()), "' ");
      if (!is_key(spec.key)) refuse(path, whose, "expected a name of [a-z][a-z0-9_]*");
      if (!nn::fitting(spec, spec.fallback))
        refuse(path, whose, "expected ", nn::expectation(spec), ", its fallback is ",
               escaped(nn::to_toml(spec.fallback)));
    }
}

void check_rows(const std::string& path) {
  using curriculum::pacing_kinds, curriculum::score_kinds, distill::term_kinds;
  check_rows(path, "model", nn::model_kinds(), &nn::ModelKind::make, "make");
  check_rows(path, "data format", nn::data_kinds(), &nn::DataKind::open, "open");
  check_rows(path, "term", term_kinds(), &distill::TermKind::make, "make");
  check_rows(path, "score", score_kinds(), &curriculum::ScoreKind::of, "of");
  for (const auto& row : term_kinds().rows())
    if (!is_key(row->names.front()))
      refuse(path, "its rows were refused: expected a name of [a-z][a-z0-9_]* for the term '",
             escaped(row->names.front()), "'");
  check_options(path, "model", nn::model_kinds());
  check_options(path, "data format", nn::data_kinds());
  check_options(path, "data format", nn::data_kinds(), &nn::DataKind::treatment);
  check_options(path, "data format", nn::data_kinds(), &nn::DataKind::reading);
  check_options(path, "term", term_kinds());
  check_options(path, "pacing", pacing_kinds());
}

void register_rows(const std::string& path, const std::string& file) {
  void* const library = open_library(path, file);
  if (library == nullptr) refuse(path, "cannot be opened: ", escaped(dlerror(), 300));
  const auto abi = reinterpret_cast<const char* (*)()>(dlsym(library, "retort_extension_abi"));
  const auto add =
      reinterpret_cast<int (*)(char*, std::size_t)>(dlsym(library, "retort_extension_register"));
  if (abi == nullptr || add == nullptr || std::strcmp(abi(), RETORT_EXTENSION_ABI) != 0)
    refuse(path,
           "no extension of Retort (it does not export RETORT_EXTENSION, see nn/extension.h)");
  char message[1024] = "";
  if (add(message, sizeof message) != 0)
    refuse(path, "its rows were refused: ", escaped(message, sizeof message));
  check_rows(path);
}

void load(const std::string& path) {
  std::error_code error;
  RETORT_CHECK(fs::exists(path, error), "--load: there is no file ", escaped(path, 200));
  if (!fs::is_regular_file(path, error)) refuse(path, "not a file");
  const std::string bytes = read_file(path, kMostBytes);
  check_shared_library(path, bytes);
  check_abi(path, bytes);
  const std::string name = fs::path(path).filename().string(), hash = hash_bytes(bytes);
  for (const std::string& other : loaded())
    RETORT_CHECK(!other.ends_with(" " + hash), "--load: ", escaped(path, 200), " is given twice");
  register_rows(path, fs::canonical(path).string());  // a path with '/': nothing is searched for
  loaded().push_back(escaped(name, 200) + " " + hash);
}

}  // namespace

void load_extensions(const std::vector<std::string>& paths) {
  for (const std::string& path : paths) load(path);
}

const std::vector<std::string>& loaded_extensions() { return loaded(); }

}  // namespace retort::tools
