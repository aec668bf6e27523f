/**
 * The dialogs about the master: its name, its API key, and the keyboard shortcuts.
 */
import { useRef } from "preact/hooks"
import type { Api, Instance, MasterInfo } from "./Api.js"
import { Dialog, Field } from "./Dialog.js"
import { Facts } from "./Facts.js"
import { bytes, duration } from "./Format.js"

export interface Props {
  readonly api: Api
  readonly onClose: () => void
}

export interface AboutProps extends Props {
  readonly info: MasterInfo
  /** Called when the user asks for a new API key. */
  readonly onNewKey: () => void
}

export const About = ({ api, info, onClose, onNewKey }: AboutProps) => {
  const facts = [
    ["Machine", `${info.name}, ${info.os} ${info.arch}`],
    ["Version", info.ver],
    ["Up", `${duration(info.uptime)}; the machine ${duration(info.sysup)}`],
    ["Memory", `${bytes(info.mem_used)} of ${bytes(info.mem_total)}`],
    ["Network", `${bytes(info.netrx)} in, ${bytes(info.nettx)} out`],
    ["Disks", `${bytes(info.diskr)} read, ${bytes(info.diskw)} written`],
    ["Id", info.mid]
  ] as const
  return (
    <Dialog
      title="This master"
      action="Rename"
      onClose={onClose}
      onSubmit={async (fields) => {
        await api.send("POST", "info", { alias: fields.get("alias") })
      }}
    >
      <Field name="alias" label="Name" value={info.alias} />
      <Facts rows={facts} />
      <div class="actions">
        <button type="button" onClick={onNewKey}>
          New API key
        </button>
      </div>
    </Dialog>
  )
}

export const NewKey = ({ api, onClose, onKey }: Props & { readonly onKey: (key: string) => void }) => {
  const key = useRef("")
  return (
    <Dialog
      title="Create a new API key?"
      action="Create a new key"
      danger
      onClose={onClose}
      onSubmit={async () => {
        key.current = (await api.send<Instance>("PATCH", "instances/********", { action: "restart" })).value.url
      }}
      onSuccess={() => onKey(key.current)}
    >
      <p>The current key stops working at once, for you and for everybody else who uses it.</p>
    </Dialog>
  )
}

/** Shows the new key once. */
export const ShowKey = ({ apiKey, onClose }: { readonly apiKey: string; readonly onClose: () => void }) => (
  <Dialog title="The new API key" onClose={onClose}>
    <p>It is shown only once. You are signed in with it.</p>
    <Field name="key" label="API key" value={apiKey} />
  </Dialog>
)

const keys: ReadonlyArray<readonly [key: string, meaning: string]> = [
  ["/", "search instances"],
  ["↑ ↓", "move between instances in the list"],
  ["Enter", "open the instance"],
  ["n", "create an instance"],
  ["Esc", "return to the list; close a dialog"],
  ["?", "these shortcuts"]
]

export const Keys = ({ onClose }: Pick<Props, "onClose">) => (
  <Dialog title="Keyboard shortcuts" onClose={onClose}>
    <Facts rows={keys} />
  </Dialog>
)
