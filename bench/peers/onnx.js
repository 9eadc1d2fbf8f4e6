// onnx.js - writes ONNX files: the few messages of onnx.proto that a graph with its weights needs.

const VARINT = 0;
const BYTES = 2;
const FIXED32 = 5;
export const TYPE = { f32: 1, u8: 2, i8: 3, i32: 6, i64: 7 };

function varint(n) {
  const bytes = [];
  for (let rest = BigInt.asUintN(64, BigInt(n)); ; rest >>= 7n) {
    if (rest < 128n) return Buffer.from([...bytes, Number(rest)]);
    bytes.push(Number(rest & 127n) | 128);
  }
}

const number = (field, n) => Buffer.concat([varint((field << 3) | VARINT), varint(n)]);
const float = (field, x) => Buffer.concat([varint((field << 3) | FIXED32), Buffer.from(new Float32Array([x]).buffer)]);
const string = (field, text) => message(field, [Buffer.from(text, 'utf8')]);

function message(field, parts) {
  const size = parts.reduce((sum, part) => sum + part.length, 0);
  return Buffer.concat([varint((field << 3) | BYTES), varint(size), ...parts]);
}

/** A number: whole ones become INT, the others FLOAT; {float} forces that. */
function attribute(name, value) {
  if (Number.isInteger(value)) return message(5, [string(1, name), number(3, value), number(20, 2)]);
  return message(5, [string(1, name), float(2, value.float ?? value), number(20, 1)]);
}

/** dims: numbers, or names of what varies */
function valueInfo(field, [name, type, dims]) {
  const dim = (d) => message(1, [typeof d === 'string' ? string(2, d) : number(1, d)]);
  return message(field, [string(1, name), message(2, [message(1, [number(1, type), message(2, dims.map(dim))])])]);
}

/** A graph that grows node by node. */
export class Graph {
  constructor() {
    Object.assign(this, { nodes: [], weights: [], inputs: [], outputs: [], count: 0 });
  }

  /** Adds a node; returns the name of its first output. outputs: names, '' for those not wanted; default: one of its own. */
  node(op, inputs, attributes = {}, { domain = '', outputs = [`${op}_${this.count}`] } = {}) {
    this.count++;
    this.nodes.push(message(1, [...inputs.map((name) => string(1, name)), ...outputs.map((name) => string(2, name)), string(3, `n${this.count}`),
      string(4, op), ...Object.entries(attributes).map(([name, value]) => attribute(name, value)), ...(domain ? [string(7, domain)] : [])]));
    return outputs[0];
  }

  /** An operator of onnxruntime's own. */
  contrib(op, inputs, attributes, outputs) {
    return this.node(op, inputs, attributes, { domain: 'com.microsoft', ...(outputs ? { outputs } : {}) });
  }

  /** data: a typed array; returns the name. */
  weight(name, type, dims, data) {
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    this.weights.push(message(5, [...dims.map((d) => number(1, d)), number(2, type), string(8, name), message(9, [bytes])]));
    return name;
  }

  input(name, type, dims) {
    this.inputs.push(valueInfo(11, [name, type, dims]));
    return name;
  }

  output(name, type, dims) {
    this.outputs.push(valueInfo(12, [name, type, dims]));
  }

  /** The whole file, in parts. */
  bytes() {
    const graph = [...this.nodes, string(2, 'decoder'), ...this.weights, ...this.inputs, ...this.outputs];
    const size = graph.reduce((sum, part) => sum + part.length, 0);
    const opset = (domain, version) => message(8, [string(1, domain), number(2, version)]);
    return [number(1, 8), string(2, 'bench'), varint((7 << 3) | BYTES), varint(size), ...graph, opset('', 17), opset('com.microsoft', 1)];
  }
}
