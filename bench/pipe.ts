/**
 * A plain Node hop: what comes is piped to a port, and back, TCP and UDP. Prints its own port.
 */
import * as Dgram from "node:dgram"
import * as Net from "node:net"
import process from "node:process"

const to = Number(process.argv[2])
const server = Net.createServer({ allowHalfOpen: true, noDelay: true }, (left) => {
  const right = Net.connect({ port: to, host: "127.0.0.1", allowHalfOpen: true, noDelay: true })
  left.on("error", () => right.destroy()).pipe(right)
  right.on("error", () => left.destroy()).pipe(left)
})
const udp = (port: number) =>
  new Promise<void>((resolve, reject) => {
    const ways = new Map<number, Dgram.Socket>()
    const front = Dgram.createSocket("udp4")
      .on("error", reject)
      .on("message", (bytes, visitor) => {
        const known = ways.get(visitor.port)
        if (known !== undefined) return known.send(bytes)
        const way = Dgram.createSocket("udp4").on("message", (answer) => front.send(answer, visitor.port, "127.0.0.1"))
        ways.set(visitor.port, way)
        way.connect(to, "127.0.0.1", () => way.send(bytes))
      })
    front.bind(port, "127.0.0.1", resolve)
  })

server.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, async () => {
  const address = server.address()
  const port = typeof address === "object" && address !== null ? address.port : 0
  await udp(port)
  console.log(port)
})
