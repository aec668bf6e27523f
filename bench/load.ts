/**
 * The two ends of a measurement, in a process of their own: `target` answers, `drive` asks. One JSON line a result.
 */
import * as Dgram from "node:dgram"
import { once } from "node:events"
import * as Net from "node:net"
import process from "node:process"

/** What the first byte of a connection asks the target for. */
const asks = { echo: 1, sink: 2, source: 3, answer: 4 } as const
const blob = Buffer.alloc(64 * 1024, 7)

const target = () => {
  const server = Net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    socket
      .on("error", () => {})
      .once("data", (first: Buffer) => {
        if (first[0] === asks.echo) {
          socket.write(first.subarray(1))
          socket.pipe(socket)
        }
        if (first[0] === asks.answer) socket.end("a")
        if (first[0] === asks.sink) socket.on("data", () => {}).on("end", () => socket.end())
        if (first[0] === asks.source) {
          const pour = () => {
            while (!socket.destroyed && socket.write(blob)) continue
          }
          socket.on("drain", pour).on("end", () => socket.destroy())
          pour()
        }
      })
  })
  server.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, async () => {
    const address = server.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    const echo = Dgram.createSocket("udp4")
    echo.on("message", (bytes, peer) => echo.send(bytes, peer.port, peer.address))
    await new Promise<void>((resolve) => echo.bind(port, "127.0.0.1", resolve))
    console.log(port)
  })
}

const open = async (port: number, ask: number) => {
  const socket = Net.connect({ port, host: "127.0.0.1", noDelay: true })
  socket.on("error", () => {})
  await once(socket, "connect")
  socket.write(Uint8Array.of(ask))
  return socket
}

/** MiB a second over that many streams, after a warm-up of a fifth. */
const throughput = async (port: number, ask: "sink" | "source", streams: number, millis: number) => {
  let bytes = 0
  const sockets = await Promise.all(Array.from({ length: streams }, () => open(port, asks[ask])))
  for (const socket of sockets) {
    if (ask === "source") socket.on("data", (chunk: Buffer) => (bytes += chunk.length))
    else {
      const pour = () => {
        while (!socket.destroyed && socket.write(blob)) continue
      }
      socket.on("drain", pour)
      pour()
    }
  }
  const moved = () => (ask === "source" ? bytes : sockets.reduce((sum, { bytesWritten }) => sum + bytesWritten, 0))
  await new Promise((resolve) => setTimeout(resolve, millis / 5))
  const [start, from] = [performance.now(), moved()]
  await new Promise((resolve) => setTimeout(resolve, millis))
  const rate = (moved() - from) / 2 ** 20 / ((performance.now() - start) / 1000)
  for (const socket of sockets) socket.destroy()
  return { rate }
}

/** One visit: connect, ask, be answered. */
const visit = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    let answered = false
    const socket = Net.connect({ port, host: "127.0.0.1", noDelay: true })
    socket
      .on("error", () => resolve(false))
      .on("close", () => resolve(answered))
      .on("data", () => (answered = true))
      .on("end", () => socket.end())
    socket.write(Uint8Array.of(asks.answer))
  })

const visitors = async (port: number, concurrency: number, millis: number) => {
  const end = performance.now() + millis
  let served = 0
  let failed = 0
  const start = performance.now()
  await Promise.all(
    Array.from({ length: concurrency }, async () => {
      while (performance.now() < end) {
        if (await visit(port)) served++
        else failed++
      }
    })
  )
  return { rate: served / ((performance.now() - start) / 1000), failed }
}

const burst = async (port: number, count: number) => {
  const start = performance.now()
  const served = await Promise.all(Array.from({ length: count }, () => visit(port)))
  return { millis: performance.now() - start, failed: served.filter((answered) => !answered).length }
}

/** Microseconds of a 64-byte round trip. */
const latency = async (port: number, millis: number) => {
  const socket = await open(port, asks.echo)
  const question = Buffer.alloc(64)
  const times: Array<number> = []
  const end = performance.now() + millis
  while (performance.now() < end) {
    const start = performance.now()
    socket.write(question)
    for (let got = 0; got < question.length;) got += ((await once(socket, "data")) as [Buffer])[0].length
    times.push((performance.now() - start) * 1000)
  }
  socket.destroy()
  times.sort((left, right) => left - right)
  const at = (part: number) => times[Math.floor(times.length * part)] ?? 0
  return { p50: at(0.5), p99: at(0.99) }
}

/** Datagrams echoed a second, so many of so many bytes under way; one that is lost is given up after a moment. */
const datagrams = async (port: number, bytes: number, millis: number) => {
  const window = 16
  const socket = Dgram.createSocket("udp4")
  socket.connect(port, "127.0.0.1")
  await once(socket, "connect")
  const question = Buffer.alloc(bytes)
  let [echoed, sent, before] = [0, 0, 0]
  const send = () => {
    sent++
    socket.send(question)
  }
  const answered = once(socket, "message")
  send()
  await answered
  socket.on("message", () => {
    echoed++
    send()
  })
  const start = performance.now()
  for (let under = 0; under < window; under++) send()
  while (performance.now() - start < millis) {
    await new Promise((resolve) => setTimeout(resolve, 20))
    if (echoed === before) send()
    before = echoed
  }
  const rate = echoed / ((performance.now() - start) / 1000)
  socket.close()
  return { rate, lost: Math.max(0, sent - 1 - echoed - window) }
}

const [what = "", port = "", ...rest] = process.argv.slice(2)
const [first = 0, second = 0] = rest.slice(-2).map(Number)
const to = Number(port)
if (what === "target") target()
else {
  const results: Record<string, () => Promise<object>> = {
    sink: () => throughput(to, "sink", first, second),
    source: () => throughput(to, "source", first, second),
    visitors: () => visitors(to, first, second),
    burst: () => burst(to, second),
    latency: () => latency(to, second),
    datagrams: () => datagrams(to, first, second)
  }
  console.log(JSON.stringify(await results[what]?.()))
  process.exit(0)
}
