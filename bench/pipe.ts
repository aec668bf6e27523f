/**
 * A plain Node hop: pipes a port to another one and back, TCP and UDP. `seal` uses TLS 1.3 towards the
 * next hop, `open` accepts it. The simplest tunnel one can write.
 */
import * as Dgram from "node:dgram"
import * as Net from "node:net"
import process from "node:process"
import * as Tls from "node:tls"
import { host } from "./Ask.js"

const [from = 0, to = 0] = process.argv.slice(2, 4).map(Number)
const mode = process.argv[4]
const pem = process.env["BENCH_PEM"] ?? ""

const onward = (): Net.Socket =>
  mode === "seal"
    ? Tls.connect({
        socket: Net.connect({ port: to, host, allowHalfOpen: true, noDelay: true }),
        ca: pem,
        minVersion: "TLSv1.3",
        checkServerIdentity: () => undefined
      })
    : Net.connect({ port: to, host, allowHalfOpen: true, noDelay: true })

const join = (left: Net.Socket) => {
  const right = onward()
  left.on("error", () => right.destroy()).pipe(right)
  right.on("error", () => left.destroy()).pipe(left)
}

const listening = { port: from, host, backlog: 4096 }
const halves = { allowHalfOpen: true, noDelay: true }
if (mode === "open") {
  Tls.createServer({ ...halves, key: pem, cert: pem, minVersion: "TLSv1.3" }, join).listen(listening)
} else Net.createServer(halves, join).listen(listening)

const ways = new Map<number, Dgram.Socket>()
const front = Dgram.createSocket("udp4").on("message", (bytes, visitor) => {
  const known = ways.get(visitor.port)
  if (known !== undefined) return known.send(bytes)
  const way = Dgram.createSocket("udp4").on("message", (answer) => front.send(answer, visitor.port, host))
  ways.set(visitor.port, way)
  way.connect(to, host, () => way.send(bytes))
})
front.bind(from, host)
