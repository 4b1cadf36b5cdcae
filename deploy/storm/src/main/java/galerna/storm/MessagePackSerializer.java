package galerna.storm;

import java.io.BufferedOutputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.BufferedInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.storm.multilang.BoltMsg;
import org.apache.storm.multilang.ISerializer;
import org.apache.storm.multilang.NoOutputException;
import org.apache.storm.multilang.ShellMsg;
import org.apache.storm.multilang.SpoutMsg;
import org.apache.storm.shade.net.minidev.json.JSONObject;
import org.apache.storm.shade.net.minidev.json.JSONValue;
import org.apache.storm.task.TopologyContext;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessagePacker;
import org.msgpack.core.MessageUnpacker;

/**
 * Talks MessagePack with children that ask for it, and JSON with all others, so that one topology can have both: set it as
 * {@code topology.multilang.serializer}.
 *
 * <p>The handshake is JSON as ever, with {@code "galerna.frames": ["json", "msgpack"]} in its {@code conf}. A child whose answer has
 * {@code "frames": "msgpack"} beside its {@code pid} gets, and writes, frames from then on: four bytes of length (big-endian) and a
 * MessagePack array of messages, as many as there are.
 */
public class MessagePackSerializer implements ISerializer {
    private static final long serialVersionUID = 1L;
    private static final byte[] END = "\nend\n".getBytes(StandardCharsets.UTF_8);
    /** The longest frame that a child may write, in bytes. */
    private static final int LONGEST = 64 << 20;

    private transient OutputStream output;
    private transient DataInputStream input;
    private transient boolean messagePack;
    /** Messages of the frame that was read last. */
    private transient ArrayDeque<Map<String, Object>> read;

    @Override
    public void initialize(OutputStream toChild, InputStream fromChild) {
        output = new BufferedOutputStream(toChild, 1 << 16);
        input = new DataInputStream(new BufferedInputStream(fromChild, 1 << 16));
        read = new ArrayDeque<>();
        messagePack = false;
    }

    @Override
    public Number connect(Map<String, Object> conf, TopologyContext context) throws IOException, NoOutputException {
        Map<String, Object> offered = new HashMap<>(conf);
        offered.put("galerna.frames", List.of("json", "msgpack"));
        JSONObject hello = new JSONObject();
        hello.put("pidDir", context.getPIDDir());
        hello.put("conf", offered);
        hello.put("context", context);
        writeJson(hello);
        Map<String, Object> answer = readJson();
        if (!(answer.get("pid") instanceof Number pid)) {
            throw new IOException("the child did not answer the handshake with its pid: " + answer);
        }
        messagePack = "msgpack".equals(answer.get("frames"));
        return pid;
    }

    @Override
    public ShellMsg readShellMsg() throws IOException, NoOutputException {
        Map<String, Object> message = messagePack ? readFramed() : readJson();
        ShellMsg shell = new ShellMsg();
        String command = (String) message.get("command");
        shell.setCommand(command);
        shell.setId(message.get("id"));
        shell.setMsg(text(message.get("msg")));
        Object stream = message.get("stream");
        shell.setStream(stream == null ? "default" : (String) stream);
        shell.setTask(message.get("task") instanceof Number task ? task.longValue() : 0);
        Object asks = message.get("need_task_ids");
        shell.setNeedTaskIds(asks == null || (Boolean) asks);
        if (message.get("tuple") instanceof List<?> tuple) {
            shell.setTuple(new ArrayList<>(tuple));
        } else if (message.get("tuple") != null) {
            shell.addTuple(message.get("tuple"));
        }
        Object anchors = message.get("anchors");
        if (anchors instanceof List<?> several) {
            several.forEach(anchor -> shell.addAnchor(String.valueOf(anchor)));
        } else if (anchors != null) {
            shell.addAnchor(String.valueOf(anchors));
        }
        if ("metrics".equals(command)) {
            shell.setMetricName(text(message.get("name")));
            shell.setMetricParams(message.get("params"));
        }
        if (message.get("level") instanceof Number level) {
            shell.setLogLevel(level.intValue());
        }
        return shell;
    }

    @Override
    public void writeBoltMsg(BoltMsg message) throws IOException {
        if (messagePack) {
            MessageBufferPacker packer = frame();
            packer.packMapHeader(5);
            packer.packString("id").packString(message.getId());
            packer.packString("comp");
            pack(packer, message.getComp());
            packer.packString("stream").packString(message.getStream());
            packer.packString("task").packLong(message.getTask());
            packer.packString("tuple");
            pack(packer, message.getTuple());
            writeFrame(packer);
            return;
        }
        JSONObject json = new JSONObject();
        json.put("id", message.getId());
        json.put("comp", message.getComp());
        json.put("stream", message.getStream());
        json.put("task", message.getTask());
        json.put("tuple", message.getTuple());
        writeJson(json);
    }

    @Override
    public void writeSpoutMsg(SpoutMsg message) throws IOException {
        if (messagePack) {
            MessageBufferPacker packer = frame();
            packer.packMapHeader(2);
            packer.packString("command").packString(message.getCommand());
            packer.packString("id");
            pack(packer, message.getId());
            writeFrame(packer);
            return;
        }
        JSONObject json = new JSONObject();
        json.put("command", message.getCommand());
        json.put("id", message.getId());
        writeJson(json);
    }

    @Override
    public void writeTaskIds(List<Integer> taskIds) throws IOException {
        if (messagePack) {
            MessageBufferPacker packer = frame();
            pack(packer, taskIds);
            writeFrame(packer);
            return;
        }
        writeJson(taskIds);
    }

    private void writeJson(Object message) throws IOException {
        output.write(JSONValue.toJSONString(message).getBytes(StandardCharsets.UTF_8));
        output.write(END);
        output.flush();
    }

    /** A frame of one message. */
    private static MessageBufferPacker frame() throws IOException {
        MessageBufferPacker packer = MessagePack.newDefaultBufferPacker();
        packer.packArrayHeader(1);
        return packer;
    }

    private void writeFrame(MessageBufferPacker packer) throws IOException {
        byte[] frame = packer.toByteArray();
        output.write(new byte[] {
            (byte) (frame.length >>> 24), (byte) (frame.length >>> 16), (byte) (frame.length >>> 8), (byte) frame.length
        });
        output.write(frame);
        output.flush();
    }

    private static void pack(MessagePacker packer, Object value) throws IOException {
        if (value == null) {
            packer.packNil();
        } else if (value instanceof String text) {
            packer.packString(text);
        } else if (value instanceof Boolean truth) {
            packer.packBoolean(truth);
        } else if (value instanceof Long || value instanceof Integer || value instanceof Short || value instanceof Byte) {
            packer.packLong(((Number) value).longValue());
        } else if (value instanceof BigInteger big && big.bitLength() <= 64 && big.signum() >= 0) {
            packer.packBigInteger(big);
        } else if (value instanceof Number number) {
            packer.packDouble(number.doubleValue());
        } else if (value instanceof byte[] bytes) {
            packer.packBinaryHeader(bytes.length).writePayload(bytes);
        } else if (value instanceof List<?> list) {
            packer.packArrayHeader(list.size());
            for (Object each : list) {
                pack(packer, each);
            }
        } else if (value instanceof Map<?, ?> map) {
            packer.packMapHeader(map.size());
            for (Map.Entry<?, ?> entry : map.entrySet()) {
                packer.packString(String.valueOf(entry.getKey()));
                pack(packer, entry.getValue());
            }
        } else {
            // As JSON has it.
            packer.packString(value.toString());
        }
    }

    private Map<String, Object> readFramed() throws IOException, NoOutputException {
        while (read.isEmpty()) {
            int length;
            try {
                length = input.readInt();
            } catch (EOFException gone) {
                throw new NoOutputException("the child has closed its output", gone);
            }
            if (length < 0 || length > LONGEST) {
                throw new IOException("the child wrote a frame of " + Integer.toUnsignedString(length) + " bytes");
            }
            byte[] frame = new byte[length];
            input.readFully(frame);
            try (MessageUnpacker unpacker = MessagePack.newDefaultUnpacker(frame)) {
                int messages = unpacker.unpackArrayHeader();
                for (int i = 0; i < messages; i++) {
                    read.add(map(unpacker));
                }
            }
        }
        return read.remove();
    }

    private static Map<String, Object> map(MessageUnpacker unpacker) throws IOException {
        int entries = unpacker.unpackMapHeader();
        Map<String, Object> map = new HashMap<>(2 * entries);
        for (int i = 0; i < entries; i++) {
            String key = String.valueOf(unpack(unpacker));
            map.put(key, unpack(unpacker));
        }
        return map;
    }

    private static Object unpack(MessageUnpacker unpacker) throws IOException {
        switch (unpacker.getNextFormat().getValueType()) {
            case NIL -> {
                unpacker.unpackNil();
                return null;
            }
            case BOOLEAN -> {
                return unpacker.unpackBoolean();
            }
            case INTEGER -> {
                BigInteger big = null;
                if (unpacker.getNextFormat() == org.msgpack.core.MessageFormat.UINT64) {
                    big = unpacker.unpackBigInteger();
                    return big.bitLength() < 64 ? (Object) big.longValue() : big;
                }
                return unpacker.unpackLong();
            }
            case FLOAT -> {
                return unpacker.unpackDouble();
            }
            case STRING -> {
                return unpacker.unpackString();
            }
            case BINARY -> {
                return unpacker.readPayload(unpacker.unpackBinaryHeader());
            }
            case ARRAY -> {
                int length = unpacker.unpackArrayHeader();
                List<Object> list = new ArrayList<>(length);
                for (int i = 0; i < length; i++) {
                    list.add(unpack(unpacker));
                }
                return list;
            }
            case MAP -> {
                return map(unpacker);
            }
            default -> throw new IOException("the child wrote a MessagePack extension, which no message has");
        }
    }

    /** The next message of a child that talks JSON: lines up to one that says {@code end}. */
    @SuppressWarnings("unchecked")
    private Map<String, Object> readJson() throws IOException, NoOutputException {
        StringBuilder message = new StringBuilder();
        while (true) {
            String line = readLine();
            if (line == null) {
                throw new NoOutputException("the child has closed its output; it wrote: " + message);
            }
            if (line.equals("end")) {
                break;
            }
            message.append(line).append('\n');
        }
        if (JSONValue.parse(message.toString()) instanceof Map<?, ?> map) {
            return (Map<String, Object>) map;
        }
        throw new IOException("the child wrote what is no message: " + message);
    }

    /** Reads no byte beyond the line: frames may follow. */
    private String readLine() throws IOException {
        ByteArrayOutputStream line = new ByteArrayOutputStream();
        int next = input.read();
        if (next < 0) {
            return null;
        }
        while (next >= 0 && next != '\n') {
            line.write(next);
            next = input.read();
        }
        String text = line.toString(StandardCharsets.UTF_8);
        return text.endsWith("\r") ? text.substring(0, text.length() - 1) : text;
    }

    private static String text(Object value) {
        return value == null ? null : value.toString();
    }
}
