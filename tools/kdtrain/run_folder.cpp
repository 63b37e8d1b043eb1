#include "tools/kdtrain/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>

#include "engine/io/file.h"
#include "tools/kdtrain/job_state.h"
#include "tools/kdtrain/provenance.h"
#include "tools/kdtrain/recipe_identity.h"

namespace retort::tools {
namespace {

namespace fs = std::filesystem;

constexpr const char* kResolved = "recipe.resolved.toml";

[[noreturn]] void fail_io(const std::string& what, const std::string& path) {
  fail(ErrorCode::kIo, what, " ", path, ": ", std::strerror(errno));
}

void add_begun(const fs::path& folder, const std::string& title, BegunJobs* jobs) {
  std::error_code error;
  bool has_checkpoint = false;
  for (const auto& entry : fs::directory_iterator(folder, error))
    has_checkpoint |= entry.path().filename().string().starts_with("ckpt-");
  if (fs::exists(folder / kJobFailed, error))
    jobs->failed.push_back(title);
  else if (FileManifest(folder.string()).knows(kJobWeights))
    jobs->finished.push_back(title);
  else if (has_checkpoint)
    jobs->unfinished.push_back(title);
}

// Of an arm's folder, whose jobs lie in seed<k>, or for each task in a folder there.
BegunJobs begun_jobs(const fs::path& arm) {
  BegunJobs jobs;
  std::error_code error;
  std::set<fs::path> seeds;
  for (const auto& entry : fs::directory_iterator(arm, error))
    if (entry.path().filename().string().starts_with("seed")) seeds.insert(entry.path());
  for (const fs::path& seed : seeds) {
    const std::string title =
        arm.filename().string() + "/" + seed.filename().string().substr(std::strlen("seed"));
    add_begun(seed, title, &jobs);
    std::set<fs::path> tasks;
    for (const auto& entry : fs::directory_iterator(seed, error))
      if (entry.is_directory(error) && fs::exists(entry.path() / kJobLines, error))
        tasks.insert(entry.path());
    for (const fs::path& task : tasks)
      add_begun(task, title + " in task " + task.filename().string(), &jobs);
  }
  return jobs;
}

}  // namespace

RunFolder::RunFolder(const std::string& path, const Recipe& recipe, bool resume, bool retrying,
                     Device device)
    : path_(path) {
  std::error_code error;
  created_ = !fs::exists(path, error);
  RETORT_CHECK(!resume || !created_, "cannot resume ", escaped(path, 4096),
               ": there is no such folder");
  make_folders(path);
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor_ < 0) fail_io("cannot open the run folder", path);
  try {
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0)
      fail(ErrorCode::kUsage, "run folder ", path, " is in use by another kdtrain");
    if (::faccessat(AT_FDCWD, path.c_str(), W_OK | X_OK, AT_EACCESS) != 0)
      fail_io("cannot write to the run folder", path);
    const std::string saved = file(kResolved);
    // Killed while it was written: nothing else is there yet.
    if (!fs::exists(saved, error)) remove_leftovers(path, kResolved, OtherWriters::kNone);
    const bool empty = fs::is_empty(path, error);
    if (error) fail(ErrorCode::kIo, "cannot read the run folder ", path, ": ", error.message());
    if (!empty && !resume)
      fail(ErrorCode::kUsage, "run folder ", path,
           " is not empty: --resume goes on with it, --out DIR names another");
    if (!empty) {
      if (!fs::exists(saved, error))
        fail(ErrorCode::kUsage, "cannot resume ", path, ": it holds no ", kResolved);
      const Json origin = read_provenance(path);
      const auto known_hash = [&](const std::string& name) -> std::string {
        const Json* const weights = origin.is_null() ? nullptr : origin.find("weights");
        const Json* const hash = weights == nullptr ? nullptr : weights->find(name);
        return hash == nullptr ? "" : hash->as_string();
      };
      std::function<BegunJobs(const std::string&)> begun;
      if (retrying)
        begun = [&](const std::string& who) { return begun_jobs(fs::path(path) / "arms" / who); };
      const RecipeChanges changes =
          changes_since(recipe, read_file(saved, kMaxRecipeBytes), known_hash, begun, device);
      if (!changes.refused.empty()) {
        std::string list;
        for (std::size_t i = 0; i < changes.refused.size() && i < 5; ++i)
          list += (i ? "; " : "") + changes.refused[i];
        fail(ErrorCode::kUsage, "cannot resume ", path, ": the recipe changed (", list, ")");
      }
      changes_ = changes.told;
      resuming_ = true;
      remove_leftovers(path, "", OtherWriters::kNone);
    }
    files_ = std::make_unique<FileManifest>(path);
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

RunFolder::~RunFolder() {
  if (!writes()) return;
  if (created_) ::rmdir(path_.c_str());  // only if nothing was written
  ::close(descriptor_);                  // and with it the lock
}

void RunFolder::start(const Recipe& recipe, const std::string& head) {
  if (!writes()) return;
  if (!resuming_ || !changes_.empty())
    write_file_atomically(file(kResolved), head + resolved_toml(recipe));
}

void RunFolder::write_once(const std::string& name, const std::string& text) {
  if (!writes()) return;
  const FileMark mark{text.size(), hash_bytes(text)};
  const auto known = files_->files();
  const auto before = known.find(name);
  RETORT_CHECK_AS(kBadInput, before == known.end() || before->second == mark, "[resume] ", name,
                  " is not what the run began with: curriculum.file has another content, or "
                  "the teacher's weights are not those that scored the samples");
  make_folders(parent_folder(file(name)));
  write_file_atomically(file(name), text);
  if (before == known.end()) files_->record(name, mark);
}

ReportText report_text(const Recipe& recipe) {
  ReportText text{
      recipe.name, recipe.base.text("description"), {}, recipe.base.text("report.baseline")};
  for (const Arm& arm : recipe.arms) text.labels[arm.name] = arm.label;
  return text;
}

MetricsLog::~MetricsLog() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

std::size_t MetricsLog::add_job(std::string lines, bool finished) {
  jobs_.push_back({std::move(lines), finished});
  return jobs_.size() - 1;
}

void MetricsLog::open() {
  std::string text;
  while (current_ < jobs_.size()) {
    text += jobs_[current_].waiting;
    jobs_[current_].waiting.clear();
    if (!jobs_[current_].finished) break;
    ++current_;
  }
  if (path_.empty()) return;
  write_file_atomically(path_, text);
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (descriptor_ < 0) fail_io("cannot open", path_);
}

void MetricsLog::append(const std::string& text) {
  if (path_.empty()) return;
  struct stat before {};
  if (::fstat(descriptor_, &before) != 0) fail_io("cannot write", path_);
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::write(descriptor_, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int reason = errno;
      // Leave no torn line behind.
      [[maybe_unused]] const int restored = ::ftruncate(descriptor_, before.st_size);
      errno = reason;
      fail_io("cannot write", path_);
    }
    done += static_cast<std::size_t>(n);
  }
}

void MetricsLog::write(std::size_t job, const std::string& line) {
  const std::lock_guard lock(mutex_);
  if (job == current_)
    append(line + "\n");
  else
    jobs_[job].waiting += line + "\n";
}

void MetricsLog::finish(std::size_t job) {
  const std::lock_guard lock(mutex_);
  jobs_[job].finished = true;
  while (current_ < jobs_.size() && jobs_[current_].finished) {
    if (++current_ == jobs_.size()) break;
    append(jobs_[current_].waiting);
    jobs_[current_].waiting.clear();
  }
}

}  // namespace retort::tools
