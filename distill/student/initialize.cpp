#include "distill/student/initialize.h"

#include <map>

namespace retort::distill {

std::vector<std::string> copy_layers(nn::Module& student, const nn::Module& teacher,
                                     const LayerMap& map) {
  std::map<std::string, Tensor> source;
  for (const auto& list : {teacher.named_parameters(), teacher.named_buffers()})
    for (const auto& [name, tensor] : list) source.emplace(name, tensor);
  // Everything is checked before the first value changes.
  std::vector<std::pair<Tensor, Tensor>> copies;
  std::vector<std::string> copied;
  std::vector<bool> used(map.size());
  for (const auto& list : {student.named_parameters(), student.named_buffers()})
    for (const auto& [name, tensor] : list)
      for (std::size_t i = 0; i < map.size(); ++i) {
        const auto& [to, from] = map[i];
        if (!name.starts_with(to)) continue;
        const std::string other = from + name.substr(to.size());
        const auto it = source.find(other);
        RETORT_CHECK(it != source.end(), "[copy_layers] the teacher has no '", other,
                     "' for the student's '", name, "'");
        RETORT_CHECK(it->second.shape() == tensor.shape(), "[copy_layers] the student's '", name,
                     "' is ", tensor.shape(), ", the teacher's '", other, "' is ",
                     it->second.shape());
        copies.emplace_back(tensor, it->second);
        copied.push_back(name);
        used[i] = true;
        break;
      }
  for (std::size_t i = 0; i < map.size(); ++i)
    RETORT_CHECK(used[i], "[copy_layers] no name of the student begins with '", map[i].first, "'");
  for (const auto& [to, from] : copies) to.detach().copy_from(from.detach());
  return copied;
}

LayerMap every_second_layer(const nn::Transformer& student, const nn::Transformer& teacher) {
  const std::int64_t own = student.config().layers, theirs = teacher.config().layers;
  const std::int64_t stride = own == theirs ? 1 : 2;
  RETORT_CHECK(stride * (own - 1) < theirs,
               "[student] layer i starts from the teacher's layer 2i: expected at most ",
               (theirs + 1) / 2, " layers, or its ", theirs, ", got ", own);
  const bool decoder = student.config().family == nn::TransformerFamily::kGpt2;
  RETORT_CHECK(decoder == (teacher.config().family == nn::TransformerFamily::kGpt2), "[student] a ",
               nn::name_of(student.config().family), " has other layers than the teacher, a ",
               nn::name_of(teacher.config().family));
  std::map<std::string, std::string> source(teacher.parts().begin(), teacher.parts().end());
  LayerMap map;
  for (const auto& [part, prefix] : student.parts()) {
    std::string from = part;
    if (part.starts_with("layer")) {
      const std::size_t dot = part.find('.');
      from =
          "layer" + std::to_string(stride * std::stoll(part.substr(5, dot - 5))) + part.substr(dot);
    }
    if (const auto at = source.find(from); at != source.end()) map.emplace_back(prefix, at->second);
  }
  return map;
}

}  // namespace retort::distill
