/**
 * The dialogs about the master itself: its name, its key, and the keys of the keyboard.
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
  /** A new API key is wanted. */
  readonly onNewKey: () => void
}

export const About = ({ api, info, onClose, onNewKey }: AboutProps) => {
  const facts = [
    ["Machine", `${info.name}, ${info.os} ${info.arch}`],
    ["Version", info.ver],
    ["Up", `${duration(info.uptime)}, the machine ${duration(info.sysup)}`],
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
      title="Make a new API key?"
      action="Make a new key"
      danger
      onClose={onClose}
      onSubmit={async () => {
        key.current = (await api.send<Instance>("PATCH", "instances/********", { action: "restart" })).value.url
      }}
      onSuccess={() => onKey(key.current)}
    >
      <p>The present one is worth nothing from then on, to you and to everybody else who has it.</p>
    </Dialog>
  )
}

/** Shows the new key, this once. */
export const ShowKey = ({ apiKey, onClose }: { readonly apiKey: string; readonly onClose: () => void }) => (
  <Dialog title="The new API key" onClose={onClose}>
    <p>It is shown this once. You are signed in with it.</p>
    <Field name="key" label="API key" value={apiKey} />
  </Dialog>
)

const keys: ReadonlyArray<readonly [key: string, what: string]> = [
  ["/", "find instances"],
  ["↑ ↓", "from one instance to the next, in the table"],
  ["Enter", "look at the instance"],
  ["n", "make one"],
  ["Esc", "back to all of them; close a dialog"],
  ["?", "these keys"]
]

export const Keys = ({ onClose }: Pick<Props, "onClose">) => (
  <Dialog title="Keys" onClose={onClose}>
    <Facts rows={keys} />
  </Dialog>
)
