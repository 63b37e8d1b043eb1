#include "tools/report/page_parts.h"
#include "tools/report/svg.h"

namespace retort::tools {
namespace {

constexpr const char* kStyle = R"(
:root{color-scheme:light dark;--ink:#1d2433;--soft:#566072;--line:#d9dee7;--page:#fff;--panel:#f6f8fb;--good:#15803d;--bad:#b91c1c;
--warn-ink:#5c4500;--warn:#fff4d6;--warn-edge:#e0a800;--fail-ink:#7f1d1d;--fail:#fee2e2}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9f0;--soft:#9aa4b5;--line:#343b49;--page:#14171d;--panel:#1c2129;--good:#4ade80;--bad:#f87171;
--warn-ink:#f5dfa0;--warn:#3a3010;--warn-edge:#b38600;--fail-ink:#fecaca;--fail:#451a1a}}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);margin:0 auto;max-width:1360px;padding:24px}
@media(max-width:600px){body{padding:14px}th:first-child,td:first-child{white-space:normal;min-width:7em}}
h1{font-size:24px;line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere}h2{font-size:18px;margin:32px 0 8px}p{margin:6px 0}a{color:inherit}
.soft,.none{color:var(--soft)}
.soft{max-width:90ch}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:5px 18px 5px 0;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap;vertical-align:top}
th{white-space:normal;vertical-align:bottom;min-width:72px}th:first-child,td:first-child{text-align:left}th{font-weight:600;color:var(--soft)}
tr.base td{background:var(--panel)}table.text td{text-align:left;white-space:normal;overflow-wrap:anywhere}
td:first-child{padding-left:6px}th:first-child{padding-left:6px}
.sub{color:var(--soft);font-size:12px;display:block;font-weight:400}.good{color:var(--good)}.bad{color:var(--bad)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr));gap:18px}
.charts>figure.wide{grid-column:1/-1}
figure{margin:0;background:var(--panel);border-radius:8px;padding:12px 14px;min-width:0}figcaption{font-weight:600;margin-bottom:8px}
figure .soft{font-size:13px}
.plot{position:relative;height:260px;margin:6px 10px 22px 52px}.plot.numbered{margin-right:26px}
.plot>svg{width:100%;height:100%;display:block;overflow:visible}
.plot i,.track i{position:absolute;font-style:normal}
.yt,.xt,.ends b{font-size:12px;color:var(--soft);line-height:1;white-space:nowrap}
.yt{right:100%;margin-right:7px;transform:translateY(-50%)}
.plot .xt{top:100%;margin-top:7px;transform:translateX(-50%)}
.ends{position:absolute;inset:0;pointer-events:none}.ends b{position:absolute;left:100%;margin-left:6px;transform:translateY(-50%);font-size:11px}
.xlabel{text-align:center;font-size:12px;color:var(--soft);margin:2px 0}
svg path,svg polygon{vector-effect:non-scaling-stroke}
.grid{stroke:var(--line)}.axis{stroke:var(--soft);fill:none}
.line{fill:none;stroke:var(--s);stroke-width:1.8;stroke-linejoin:round}
.point{fill:none;stroke:var(--s);stroke-width:6;stroke-linecap:round}
.dots{fill:none;stroke:var(--s);stroke-width:2.4;stroke-linecap:round;opacity:.55}
.band{stroke:none;fill:var(--s);opacity:.13}
.d1{stroke-dasharray:7 3}.d2{stroke-dasharray:2 3}.d3{stroke-dasharray:9 3 2 3}
.legend{list-style:none;margin:6px 0 0;padding:0;display:flex;flex-wrap:wrap;gap:3px 16px;font-size:13px}
.key{width:24px;height:10px;margin-right:6px;vertical-align:middle}
.rows{display:grid;grid-auto-flow:dense;grid-template-columns:minmax(0,max-content) 1fr max-content}
.row{display:contents}.row>span{border-bottom:1px solid var(--line);padding:7px 0;font-size:13.5px}
.row>.name{grid-column:1;padding-right:16px;overflow-wrap:anywhere;max-width:230px}.row>.value{padding-left:16px;text-align:right;font-variant-numeric:tabular-nums;grid-column:3}
.row>.track{position:relative;grid-column:2;min-height:34px}
.track i.grid{top:0;bottom:0;width:1px;background:var(--line)}
.track i.bar{top:50%;height:3px;margin-top:-1.5px;background:var(--s);opacity:.55;border-radius:2px}
.track i.dot{top:50%;width:6px;height:6px;margin:5px 0 0 -3px;border-radius:50%;background:var(--s);opacity:.5}
.track i.mean{top:50%;width:11px;height:11px;margin:-5.5px 0 0 -5.5px;border-radius:50%;background:var(--s);border:1.5px solid var(--panel)}
.row>.track.scale{min-height:24px;border:0}.row:last-child>span{border:0}.track.scale .xt{top:6px;transform:translateX(-50%)}
@media(max-width:600px){.rows{grid-template-columns:1fr max-content}.row>.name{grid-column:1;padding-right:16px;border:0;padding-bottom:0;max-width:none}
.row>.value{grid-column:2;border:0;padding-bottom:0}.row>.track{grid-column:1/-1}}
p.images{font-weight:600;font-size:13px;margin:10px 0 4px}
ul.images{list-style:none;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:8px}
ul.images li{width:52px;font-size:11px;text-align:center;overflow-wrap:anywhere;line-height:1.3}
ul.images img{width:52px;height:52px;object-fit:contain;image-rendering:pixelated;border-radius:4px;display:block}
.note{background:var(--warn);color:var(--warn-ink);border-left:4px solid var(--warn-edge);padding:6px 12px;margin:6px 0;overflow-wrap:anywhere}
.failed{background:var(--fail);color:var(--fail-ink);border-left:4px solid var(--bad);padding:6px 12px;margin:6px 0;overflow-wrap:anywhere}
summary{cursor:pointer;margin:10px 0}
pre{background:var(--panel);padding:12px;border-radius:8px;overflow-x:auto;font-size:12.5px}
)";

struct Colour {
  const char *light, *dark;
};
constexpr Colour kColours[] = {
    {"#2563eb", "#60a5fa"}, {"#ea580c", "#fb923c"}, {"#16a34a", "#4ade80"}, {"#9333ea", "#c084fc"},
    {"#dc2626", "#f87171"}, {"#0891b2", "#22d3ee"}, {"#a16207", "#facc15"}, {"#db2777", "#f472b6"},
    {"#64748b", "#94a3b8"}, {"#65a30d", "#a3e635"}};

std::string colours() {
  std::string light, dark;
  int k = 0;
  for (const Colour& colour : kColours) {
    const std::string rule = ".c" + std::to_string(k++) + "{--s:";
    light += rule + colour.light + "}";
    dark += rule + colour.dark + "}";
  }
  return light + "\n@media(prefers-color-scheme:dark){" + dark + "}\n";
}

}  // namespace

std::string page_head(const std::string& title) {
  return R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>)" +
         std::string(kStyle) + colours() + "</style><title>" + escape_html(title) +
         " - Retort report</title></head>";
}

}  // namespace retort::tools
