/**
 * The target of a measurement, in a separate process, TCP and UDP. It serves the request of the first byte, and prints its port.
 */
import * as Dgram from "node:dgram"
import * as Net from "node:net"
import { asks, bulkBytes, host } from "./Ask.js"

const blob = Buffer.alloc(bulkBytes, 7)
const scrap = Buffer.alloc(bulkBytes)

/** Node offers `onread` only for sockets that connect; without it each read allocates, a third of the target's CPU. */
const withBuffer = (accepted: Net.Socket, onread: Net.OnReadOpts): Net.Socket => {
  const bare = accepted as unknown as { _handle: object | null }
  const handle = bare._handle
  bare._handle = null
  return new Net.Socket({ handle, onread, allowHalfOpen: true } as Net.SocketConstructorOpts)
}

const serve = (accepted: Net.Socket) => {
  let ask = 0
  const pour = () => {
    while (!socket.destroyed && socket.write(blob)) continue
  }
  const begin = () => {
    if (ask === asks.answer) socket.end("a")
    if (ask === asks.source) socket.on("drain", pour).on("end", () => socket.destroy())
    if (ask === asks.source) pour()
    if (ask === asks.sink || ask === asks.echo) socket.on("end", () => socket.end())
  }
  const callback = (bytes: number, buffer: Uint8Array) => {
    const fresh = ask === 0
    if (fresh) {
      ask = buffer[0] ?? 0
      begin()
    }
    if (ask === asks.echo && bytes > (fresh ? 1 : 0)) socket.write(buffer.slice(fresh ? 1 : 0, bytes))
    return true
  }
  const socket = withBuffer(accepted, { buffer: scrap, callback })
  socket.on("error", () => {}).setNoDelay(true)
  socket.resume()
}

const server = Net.createServer({ allowHalfOpen: true, pauseOnConnect: true }, serve)
server.listen({ port: 0, host, backlog: 4096 }, () => {
  const address = server.address()
  const port = typeof address === "object" && address !== null ? address.port : 0
  const echo = Dgram.createSocket("udp4")
  echo.on("message", (bytes, peer) => echo.send(bytes, peer.port, peer.address))
  echo.bind(port, host, () => console.log(port))
})
