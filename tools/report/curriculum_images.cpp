#include "tools/report/curriculum_images.h"

#include <algorithm>

#include "engine/io/file.h"
#include "engine/io/json.h"
#include "tools/report/metric_text.h"
#include "tools/report/png.h"
#include "tools/report/svg.h"

namespace retort::tools {
namespace {

Json images_json(const std::vector<CurriculumImage>& images) {
  Json all = Json::array();
  for (const CurriculumImage& image : images) {
    Json one = Json::object();
    one.set("index", image.index).set("label", image.label).set("score", image.score);
    one.set("correct", image.correct);
    all.push(one.set("png", base64(png_of(image.width, image.height, image.rgb))));
  }
  return all;
}

bool is_base64(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '+' ||
           c == '/' || c == '=';
  });
}

std::string image_html(const Json& image, const std::string& file) {
  const std::string& png = image.at("png").as_string();
  RETORT_CHECK_AS(kBadInput, is_base64(png), file, ": expected base64 under 'png'");
  std::string text, hint;
  if (const Json* label = image.find("label")) text = escape_html(label->as_string());
  if (const Json* correct = image.find("correct"); correct && !correct->as_bool())
    text = "<s>" + text + "</s>";
  if (const Json* index = image.find("index"))
    hint = "image " + std::to_string(index->as_integer());
  if (const Json* score = image.find("score"))
    hint += (hint.empty() ? "score " : ", score ") + short_number(score->as_number());
  return "<li title=\"" + escape_html(hint) + "\"><img alt=\"" + escape_html(hint) +
         "\" src=\"data:image/png;base64," + png + "\">" + text + "</li>";
}

}  // namespace

void write_curriculum_images(const std::filesystem::path& run_folder, const std::string& name,
                             const std::vector<CurriculumImage>& easiest,
                             const std::vector<CurriculumImage>& hardest) {
  Json file = Json::object();
  file.set("easiest", images_json(easiest)).set("hardest", images_json(hardest));
  write_file_atomically((run_folder / "curriculum" / (name + ".images.json")).string(),
                        file.dump() + "\n");
}

std::string curriculum_images_html(const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) return "";
  const Json json = Json::read(file.string(), std::uint64_t{8} << 20);
  std::string out;
  for (const char* which : {"easiest", "hardest"}) {
    const Json* images = json.find(which);
    if (!images || images->items().empty()) continue;
    out += "<p class=\"images\">" + capital(which) + "</p><ul class=\"images\">";
    for (const Json& image : images->items()) out += image_html(image, file.string());
    out += "</ul>";
  }
  return out.empty() ? out : out + "<p class=\"soft\">Struck out: the scorer was wrong.</p>";
}

}  // namespace retort::tools
