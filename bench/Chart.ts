/**
 * The chart of README.md: each figure of the tunnel relative to two Node pipes. Bars to the right are better.
 */
import * as Path from "node:path"
import { type Figure, type Results, ratio } from "./Results.js"

export const file = Path.join(import.meta.dirname, "chart.svg")

const [labels, width, step, top] = [330, 760, 22, 58]
/** The scale is logarithmic, up to this many doublings to each side. */
const doublings = 3
const middle = labels + (width - labels) / 2
const scale = (width - labels - 90) / 2 / doublings

const style = `
text { font: 12px system-ui, sans-serif; fill: #1f2328; }
.title { font-size: 14px; font-weight: 600; }
.quiet { fill: #59636e; }
.grid { stroke: #d1d9e0; }
.one { stroke: #59636e; }
.better { fill: #1a7f5a; }
.worse { fill: #bc6c25; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; }
  .quiet { fill: #9198a1; }
  .grid { stroke: #3d444d; }
  .one { stroke: #9198a1; }
  .better { fill: #3fb68b; }
  .worse { fill: #e0a458; }
}
`

const at = (times: number) => middle + Math.max(-doublings, Math.min(doublings, Math.log2(times))) * scale

const bar = (figure: Figure, row: number): string => {
  const times = figure.better === "more" ? ratio(figure, "pipes") : 1 / ratio(figure, "pipes")
  const [x, y] = [at(times), top + row * step]
  const [from, to] = [Math.min(x, middle), Math.max(x, middle)]
  const end = times >= 1 ? `x="${(to + 5).toFixed(1)}"` : `x="${(from - 5).toFixed(1)}" text-anchor="end"`
  return (
    `<text x="${labels - 10}" y="${y + 15}" text-anchor="end">${figure.name}</text>` +
    `<rect class="${times >= 1 ? "better" : "worse"}" x="${from.toFixed(1)}" y="${y + 4}" width="${(to - from).toFixed(1)}" height="${step - 8}" rx="2"/>` +
    `<text class="quiet" ${end} y="${y + 15}">${times.toFixed(2)}</text>\n`
  )
}

const mark = (times: number, bottom: number): string =>
  `<line class="${times === 1 ? "one" : "grid"}" x1="${at(times).toFixed(1)}" x2="${at(times).toFixed(1)}" y1="${top}" y2="${bottom}"/>` +
  `<text class="quiet" x="${at(times).toFixed(1)}" y="${top - 6}" text-anchor="middle">${times < 1 ? `1/${1 / times}` : times}</text>\n`

/** An SVG without embedded fonts or images, for light and dark pages. */
export const make = ({ figures }: Results): string => {
  const shown = figures.filter((figure) => Number.isFinite(ratio(figure, "pipes")) && !figure.name.startsWith("desc"))
  const bottom = top + shown.length * step
  const marks = [-3, -2, -1, 0, 1, 2, 3].map((doubled) => mark(2 ** doubled, bottom))
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${bottom + 10}" role="img">\n` +
    `<title>The tunnel compared with two Node pipes</title>\n<style>${style}</style>\n` +
    `<text class="title" x="10" y="20">Times as good as two Node pipes</text>\n` +
    `${marks.join("")}${shown.map(bar).join("")}</svg>\n`
  )
}
