/**
 * The visitors of a measurement, in a separate process. Jobs arrive as messages, one at a time; the outcome is sent back.
 */
import * as Dgram from "node:dgram"
import { once } from "node:events"
import * as Net from "node:net"
import process from "node:process"
import { asks, bulkBytes, host } from "./Ask.js"

/** The job and its port. `millis` is the time that counts, after a warm-up of a fifth of it. */
export type Job =
  | { readonly what: "sink" | "source"; readonly port: number; readonly streams: number; readonly millis: number }
  | { readonly what: "visitors"; readonly port: number; readonly concurrency: number; readonly millis: number }
  | { readonly what: "burst"; readonly port: number; readonly count: number }
  | { readonly what: "latency"; readonly port: number; readonly millis: number }
  | { readonly what: "datagrams"; readonly port: number; readonly bytes: number; readonly millis: number }
  | { readonly what: "first"; readonly port: number }
  | { readonly what: "hold"; readonly port: number; readonly count: number }
  | { readonly what: "drop" }

export type Outcome = Readonly<Record<string, number>>

const blob = Buffer.alloc(bulkBytes, 7)
const scrap = Buffer.alloc(bulkBytes)
const wait = (millis: number) => new Promise((resolve) => setTimeout(resolve, millis))
const open = new Set<Net.Socket>()

/** Opens a connection that reads into one buffer, and sends the request byte. */
const connect = (port: number, ask: keyof typeof asks, onBytes: (bytes: number) => void): Net.Socket => {
  const callback = (bytes: number) => {
    onBytes(bytes)
    return true
  }
  const socket = Net.connect({ port, host, noDelay: true, onread: { buffer: scrap, callback } })
  open.add(socket)
  socket.on("error", () => {}).on("close", () => open.delete(socket))
  socket.write(Uint8Array.of(asks[ask]))
  return socket
}

/** Closes every open connection after this time; visitors that are not served by then have failed. */
const cut = (millis: number) =>
  setTimeout(() => {
    for (const socket of open) socket.destroy()
  }, millis)

/** MiB per second over all streams, and the MiB of the whole measurement. */
const throughput = async (port: number, what: "sink" | "source", streams: number, millis: number): Promise<Outcome> => {
  let read = 0
  const sockets = Array.from({ length: streams }, () => connect(port, what, (bytes) => (read += bytes)))
  for (const socket of what === "sink" ? sockets : []) {
    const pour = () => {
      while (!socket.destroyed && socket.write(blob)) continue
    }
    socket.on("drain", pour)
    pour()
  }
  const moved = () => (what === "source" ? read : sockets.reduce((sum, { bytesWritten }) => sum + bytesWritten, 0))
  await wait(millis / 5)
  const [start, from] = [performance.now(), moved()]
  await wait(millis)
  const rate = (moved() - from) / 2 ** 20 / ((performance.now() - start) / 1000)
  const failed = sockets.filter(({ destroyed }) => destroyed).length
  const mebibytes = moved() / 2 ** 20
  for (const socket of sockets) socket.destroy()
  return { rate, mebibytes, failed }
}

/** One visit: connect, request, response, close. */
const visit = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    let answered = false
    connect(port, "answer", () => (answered = true)).on("close", () => resolve(answered))
  })

const visitors = async (port: number, concurrency: number, millis: number): Promise<Outcome> => {
  let [served, failed] = [0, 0]
  const start = performance.now()
  const limit = cut(millis + 5000)
  await Promise.all(
    Array.from({ length: concurrency }, async () => {
      while (performance.now() < start + millis) {
        if (await visit(port)) served++
        else failed++
      }
    })
  )
  clearTimeout(limit)
  return { rate: served / ((performance.now() - start) / 1000), served, failed }
}

const burst = async (port: number, count: number): Promise<Outcome> => {
  const start = performance.now()
  const limit = cut(20_000)
  const served = await Promise.all(Array.from({ length: count }, () => visit(port)))
  clearTimeout(limit)
  return { millis: performance.now() - start, failed: served.filter((answered) => !answered).length }
}

/** Microseconds of 64-byte round trips. */
const latency = async (port: number, millis: number): Promise<Outcome> => {
  const question = Buffer.alloc(64)
  const times: Array<number> = []
  let [left, start] = [question.length, performance.now()]
  const end = start + millis * 1.2
  await new Promise<void>((resolve) => {
    const socket = connect(port, "echo", (bytes) => {
      left -= bytes
      if (left > 0) return
      const now = performance.now()
      times.push((now - start) * 1000)
      if (now > end) return socket.destroy()
      left = question.length
      start = performance.now()
      socket.write(question)
    })
    socket.on("close", resolve)
    socket.write(question)
  })
  const sorted = times.slice(Math.floor(times.length / 6)).toSorted((left, right) => left - right)
  const at = (part: number) => sorted[Math.floor(sorted.length * part)] ?? Number.NaN
  return { p50: at(0.5), p99: at(0.99), failed: performance.now() < end ? 1 : 0 }
}

/** Datagrams echoed per second, 16 in flight; a lost one is given up after a timeout. */
const datagrams = async (port: number, bytes: number, millis: number): Promise<Outcome> => {
  const socket = Dgram.createSocket("udp4")
  socket.on("error", () => {}).connect(port, host)
  await once(socket, "connect")
  const question = Buffer.alloc(bytes)
  const send = () => socket.send(question)
  let [echoed, before] = [0, 0]
  socket.on("message", () => {
    echoed++
    send()
  })
  const count = async (millis: number) => {
    for (const end = performance.now() + millis; performance.now() < end;) {
      await wait(20)
      if (echoed === before) send()
      before = echoed
    }
  }
  for (let sent = 0; sent < 16; sent++) send()
  await count(millis / 5)
  const [start, from] = [performance.now(), echoed]
  await count(millis)
  const rate = (echoed - from) / ((performance.now() - start) / 1000)
  socket.close()
  return { rate, failed: echoed === 0 ? 1 : 0 }
}

/** Repeats visits until one is served. */
const first = async (port: number): Promise<Outcome> => {
  const limit = cut(10_000)
  const end = performance.now() + 10_000
  let served = false
  while (!served && performance.now() < end) {
    served = await visit(port)
    if (!served) await wait(5)
  }
  clearTimeout(limit)
  return { failed: served ? 0 : 1 }
}

/** Opens up to this many visitors within 15 s, 64 at a time, each with one echoed byte, and keeps them open. */
const hold = async (port: number, count: number): Promise<Outcome> => {
  const waiting = new Set<Net.Socket>()
  let [left, held, failed] = [count, 0, 0]
  const stay = () =>
    new Promise<void>((resolve) => {
      const socket = connect(port, "echo", () => {
        waiting.delete(socket)
        held++
        resolve()
      })
      waiting.add(socket)
      socket.on("close", () => {
        if (waiting.delete(socket)) failed++
        resolve()
      })
      socket.write("h")
    })
  const end = performance.now() + 15_000
  const limit = setTimeout(() => {
    for (const socket of waiting) socket.destroy()
  }, 20_000)
  await Promise.all(
    Array.from({ length: 64 }, async () => {
      while (left-- > 0 && performance.now() < end) await stay()
    })
  )
  clearTimeout(limit)
  return { held, failed }
}

const run = async (job: Job): Promise<Outcome> => {
  switch (job.what) {
    case "sink":
    case "source":
      return throughput(job.port, job.what, job.streams, job.millis)
    case "visitors":
      return visitors(job.port, job.concurrency, job.millis)
    case "burst":
      return burst(job.port, job.count)
    case "latency":
      return latency(job.port, job.millis)
    case "datagrams":
      return datagrams(job.port, job.bytes, job.millis)
    case "first":
      return first(job.port)
    case "hold":
      return hold(job.port, job.count)
    case "drop":
      for (const socket of open) socket.destroy()
      return {}
  }
}

process.on("message", (job: Job) => void run(job).then((outcome) => process.send?.(outcome)))
process.on("disconnect", () => process.exit())
