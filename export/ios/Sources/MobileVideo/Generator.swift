import Foundation
import Tokenizers

/// The loop from a prompt to frames, as export/app/runtime.py has it.
public struct Generator: Sendable {
    public let manifest: Manifest
    private let clip: Manifest.Clip
    private let networks: any Networks
    private let tokenizer: any Tokenizer

    public init(folder: URL, manifest: Manifest, clip: Manifest.Clip, networks: any Networks) async throws {
        self.manifest = manifest
        self.clip = clip
        self.networks = networks
        tokenizer = try await AutoTokenizer.from(modelFolder: folder)
    }

    /// Frames [t, 3, h, w] in manifest.pixels, one latent frame's after the other, from noise [c, s]. A stream's noise
    /// is of any number of chunks behind the first frame; its frames are shown while later ones are generated.
    public func generate(_ prompt: String, noise: [Float], show: (Tensor) async -> Void) async throws {
        let tokens = padded(tokenizer.encode(text: prompt).map { Int32($0) })
        var text = try await networks.call("text", tokens)
        text["text_mask"] = tokens["text_mask"]
        await networks.release("text")
        let channels = clip.latentShape[3]
        let positions = clip.latentShape[1] * clip.latentShape[2]
        let count = noise.count / (channels * positions)
        let start = noise.map { $0 * manifest.sampler.noiseScale }
        if let stream = clip.stream {
            try await self.stream(stream, text, start, count, show)
            return
        }
        let functions = clip.stepFunctions ?? [String](repeating: clip.function, count: manifest.sampler.steps)
        let latents = try await denoise(text, start, functions).latents
        await networks.release("dit")
        _ = try await decode(latents, count, nil, show)
    }

    /// Ids, padded, and their mask. Of too many the first are kept, and the closing one.
    func padded(_ ids: [Int32]) -> Tensors {
        let text = manifest.text
        let kept = ids.count > text.tokens ? ids.prefix(text.tokens - 1) + [text.closingID] : ids[...]
        let padding = text.tokens - kept.count
        let padded = kept.map { Float($0) } + [Float](repeating: Float(text.padID), count: padding)
        let mask = [Float](repeating: 1, count: kept.count) + [Float](repeating: 0, count: padding)
        return [
            "ids": Tensor(shape: [1, text.tokens], values: padded),
            "text_mask": Tensor(shape: [1, 1, 1, text.tokens], values: mask),
        ]
    }

    /// The first frame of a stream, then chunks of frames behind the state of those before. A call at time 0 with the
    /// finished latents renews the state; what the calls of the steps keep is no state. It may be for later steps, and
    /// for the same steps of the chunk behind, whose functions are the reusing ones.
    private func stream(
        _ stream: Manifest.Stream, _ text: Tensors, _ noise: [Float], _ count: Int, _ show: (Tensor) async -> Void
    ) async throws {
        let positions = clip.latentShape[1] * clip.latentShape[2]
        var state: Tensors = [:]
        var kept: Tensors?
        var before: [Tensors] = []
        var start = 0
        while start < count {
            let frames = start == 0 ? 1 : stream.chunkFrames
            let function = start == 0 ? stream.first : stream.next
            var inputs = text.merging(state) { $1 }
            inputs["frames_before"] = Tensor(shape: [1, 1, 1, 1], values: [Float(start)])
            let own = (0..<clip.latentShape[3]).flatMap { channel in
                let first = (channel * count + start) * positions
                return noise[first..<first + frames * positions]
            }
            let steps = before.isEmpty ? (start == 0 ? stream.firstSteps : stream.nextSteps) : stream.reusingSteps
            let functions = steps ?? [String](repeating: function, count: manifest.sampler.steps)
            let (latents, held) = try await denoise(inputs, own, functions, before)
            before = start > 0 && before.isEmpty && stream.reusingSteps != nil ? held : []
            state = past(try await evaluate(inputs, latents, stream.renewalFeatures, function))
            kept = try await decode(latents, frames, kept, show)
            start += frames
        }
    }

    /// Euler's steps from noise to latents [c, s], in float32 between the calls. A step may call a function of its own,
    /// which takes outputs of the steps before, and of a stream's chunk `before` those of the same step. Returns also
    /// what each step kept.
    private func denoise(
        _ inputs: Tensors, _ noise: [Float], _ functions: [String], _ before: [Tensors] = []
    ) async throws -> (latents: [Float], kept: [Tensors]) {
        var latents = noise
        var held: Tensors = [:]
        var kept: [Tensors] = []
        let byTable = clip.stepFunctions != nil || clip.stream?.firstSteps != nil
        for step in 0..<manifest.sampler.steps {
            if !before.isEmpty { held.merge(before[step]) { $1 } }
            let all = inputs.merging(held) { $1 }
            let tensors = try await evaluate(all, latents, clip.timeFeatures[step], functions[step])
            if byTable {
                kept.append(past(tensors))
                held.merge(kept[step]) { $1 }
            }
            guard let velocity = tensors["velocity"] else { throw NetworkError.missingFeature("velocity") }
            let length = clip.times[step + 1] - clip.times[step]
            latents = zip(latents, velocity.values).map { $0 + length * $1 }
        }
        return (latents, kept)
    }

    /// The inputs and all outputs of one evaluation, by the transformer's packages in order.
    private func evaluate(
        _ inputs: Tensors, _ latents: [Float], _ features: [Float], _ function: String
    ) async throws -> Tensors {
        let channels = clip.latentShape[3]
        var tensors = inputs
        tensors["latents"] = Tensor(shape: [1, channels, 1, latents.count / channels], values: latents)
        tensors["time_features"] = Tensor(shape: [1, features.count, 1, 1], values: features)
        for chunk in networks.parts.filter({ $0.hasPrefix("dit") }).sorted(by: { ($0.count, $0) < ($1.count, $1) }) {
            tensors.merge(try await networks.call(chunk, tensors, function: function)) { $1 }
        }
        return tensors
    }

    /// Shows the frames of `count` latent frames: a call's outputs kept_NAME are past_NAME of the next, and what the
    /// last one kept is returned; without any the first latent frame is that of a clip. Or all at once, by `vae`.
    private func decode(
        _ latents: [Float], _ count: Int, _ kept: Tensors?, _ show: (Tensor) async -> Void
    ) async throws -> Tensors {
        let whole = networks.parts.contains("vae")
        let length = whole ? count : 1
        let shape = [length, clip.latentShape[3], clip.latentShape[1], clip.latentShape[2]]
        var inputs = kept ?? [:]
        for start in stride(from: 0, to: count, by: length) {
            let part = whole ? "vae" : kept == nil && start == 0 ? "vae_first" : "vae_next"
            let values = (start..<start + length).flatMap { frame(latents, $0, of: count) }
            inputs["latents"] = Tensor(shape: shape, values: values)
            let outputs = try await networks.call(part, inputs)
            guard let video = outputs["video"] else { throw NetworkError.missingFeature("video") }
            await show(video)
            inputs = past(outputs)
        }
        return inputs
    }

    /// A latent frame [c, h, w] of so many, not normalised.
    private func frame(_ latents: [Float], _ index: Int, of count: Int) -> [Float] {
        let positions = clip.latentShape[1] * clip.latentShape[2]
        let all = count * positions
        return (0..<clip.latentShape[3]).flatMap { channel in
            (0..<positions).map { position in
                let value = latents[channel * all + index * positions + position]
                return value * manifest.latents.std[channel] + manifest.latents.mean[channel]
            }
        }
    }
}
