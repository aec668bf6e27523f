/**
 * Traffic over time: the master's history, continued by its events.
 */
import { useEffect, useRef, useState } from "preact/hooks"
import UPlot from "uplot"
import type { Api, Point } from "./Api.js"
import { rate } from "./Format.js"
import * as Samples from "./Samples.js"
import type { Shown } from "./State.js"

export interface Props {
  readonly api: Api
  readonly shown: Shown
}

/** The time shown. */
const spans = [
  { label: "5 min", minutes: 5 },
  { label: "1 h", minutes: 60 },
  { label: "6 h", minutes: 360 }
] as const

export const Chart = ({ api, shown }: Props) => {
  const { id } = shown.instance
  const box = useRef<HTMLDivElement>(null)
  const samples = useRef<Samples.Samples>([])
  /** How far the master's clock is ahead of the browser's, in milliseconds. */
  const ahead = useRef(0)
  const [minutes, setMinutes] = useState<number>(spans[0].minutes)
  const redraw = useRef<() => void>(() => {})

  useEffect(() => {
    samples.current = []
    let isOpen = true
    const prepend = ({ points }: { readonly points: ReadonlyArray<Point> }): void => {
      if (!isOpen) return
      samples.current = Samples.join(Samples.fromPoints(points), samples.current)
      redraw.current()
    }
    api.get<Parameters<typeof prepend>[0]>(`instances/${id}/traffic`).then(
      prepend,
      // Without the history, the chart starts now.
      () => undefined
    )
    return () => {
      isOpen = false
    }
  }, [api, id])

  useEffect(() => {
    const element = box.current
    if (element === null) return
    const now = () => Date.now() + ahead.current
    const data = () => Samples.rates(samples.current, now())
    const draw = () => new UPlot(optionsFor({ width: element.clientWidth, minutes, now }), data(), element)
    const plot = { current: draw() }
    redraw.current = () => plot.current.setData(data())
    const redrawAll = () => {
      plot.current.destroy()
      plot.current = draw()
    }
    const scheme = matchMedia("(prefers-color-scheme: dark)")
    scheme.addEventListener("change", redrawAll)
    const sizes = new ResizeObserver(() => plot.current.setSize({ width: element.clientWidth, height }))
    sizes.observe(element)
    const timer = setInterval(redraw.current, redrawInterval)
    return () => {
      clearInterval(timer)
      scheme.removeEventListener("change", redrawAll)
      sizes.disconnect()
      plot.current.destroy()
    }
  }, [id, minutes])

  useEffect(() => {
    ahead.current = shown.time - shown.receivedAt
    samples.current = Samples.add(samples.current, shown)
    redraw.current()
  }, [shown])

  return (
    <section aria-labelledby="chart-title">
      <div class="bar">
        <h3 id="chart-title">Traffic</h3>
        <div class="choices" role="group" aria-label="Time shown">
          {spans.map((span) => (
            <button
              key={span.minutes}
              type="button"
              aria-pressed={minutes === span.minutes}
              onClick={() => setMinutes(span.minutes)}
            >
              {span.label}
            </button>
          ))}
        </div>
      </div>
      <div
        ref={box}
        class="chart"
        role="img"
        aria-label={`Traffic: ${rate(shown.rate.rx)} in, ${rate(shown.rate.tx)} out`}
      />
    </section>
  )
}

// internal

const height = 200
/** Milliseconds between two redraws. */
const redrawInterval = 5000
/** Lowest upper end of the scale, in bytes per second. */
const minScale = 1024

/** Steps of the scale: powers of two, so that the labels are round numbers of KiB, MiB, … */
const powers = Array.from({ length: 50 }, (_, power) => 2 ** power)

const clock = (seconds: number, minutes: number): string =>
  new Date(seconds * 1000).toLocaleTimeString([], {
    hour: "2-digit",
    minute: "2-digit",
    ...(minutes > spans[0].minutes ? {} : { second: "2-digit" })
  })

const colour = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(name).trim()

interface ChartOptions {
  readonly width: number
  readonly minutes: number
  /** Epoch milliseconds. */
  readonly now: () => number
}

const optionsFor = ({ minutes, now, width }: ChartOptions): UPlot.Options => {
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } }
  const value = (_: UPlot, bytes: number | null) => (bytes === null ? "–" : rate(bytes))
  return {
    width,
    height,
    cursor: { y: false, drag: { x: false, y: false } },
    scales: {
      x: { range: () => [now() / 1000 - minutes * 60, now() / 1000] },
      y: { range: (_, __, high) => [0, Math.max(high * 1.1, minScale)] }
    },
    axes: [
      { ...axis, values: (_, values) => values.map((value) => clock(value, minutes)), space: 70, size: 30 },
      { ...axis, size: 90, incrs: powers, values: (_, values) => values.map(rate) }
    ],
    series: [
      {},
      { label: "in", stroke: colour("--in"), fill: `${colour("--in")}22`, width: 1.5, value },
      { label: "out", stroke: colour("--out"), width: 1.5, value }
    ]
  }
}
