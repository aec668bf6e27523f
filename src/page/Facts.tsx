/**
 * A list of names and values.
 */
import type { ComponentChildren } from "preact"

export interface Props {
  readonly class?: string | undefined
  readonly rows: ReadonlyArray<readonly [name: string, value: ComponentChildren]>
}

export const Facts = ({ class: name = "facts", rows }: Props) => (
  <dl class={name}>
    {rows.map(([name, value]) => (
      <div key={name}>
        <dt>{name}</dt>
        <dd>{value}</dd>
      </div>
    ))}
  </dl>
)
