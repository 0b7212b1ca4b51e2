import MobileVideo
import SwiftUI

/// A prompt, a button and the clip. The exported folder is the bundle's folder "export".
@main
struct MobileVideoApp: App {
    var body: some Scene {
        WindowGroup { ClipView() }
    }
}

struct ClipView: View {
    @State private var prompt = "a red circle moving left"
    @State private var frames: [CGImage] = []
    @State private var status = ""
    @State private var frameRate = 8.0

    var body: some View {
        VStack {
            TimelineView(.periodic(from: .now, by: 1 / frameRate)) { context in
                if !frames.isEmpty {
                    let index = Int(context.date.timeIntervalSinceReferenceDate * frameRate) % frames.count
                    Image(decorative: frames[index], scale: 1).resizable().scaledToFit()
                }
            }
            TextField("Prompt", text: $prompt)
            Button("Generate") { Task { await generate() } }
            Text(status)
        }
        .padding()
    }

    private func generate() async {
        do {
            frames = []
            status = "generating"
            let folder = Bundle.main.bundleURL.appending(path: "export")
            let manifest = try Manifest.read(from: folder)
            let clip = manifest.clips[0]
            frameRate = manifest.frameRate
            let networks = installed(folder, manifest, clip)
            let generator = try await Generator(folder: folder, manifest: manifest, clip: clip, networks: networks)
            let noise = normalNoise(count: clip.latentShape.reduce(1, *))
            try await generator.generate(prompt, noise: noise) { video in
                frames += images(video, manifest.pixels)
            }
            status = ""
        } catch {
            status = "\(error)"
        }
    }

    private func installed(_ folder: URL, _ manifest: Manifest, _ clip: Manifest.Clip) -> any Networks {
        #if canImport(CoreAI)
        if #available(iOS 27.0, macOS 27.0, *), !manifest.assets.isEmpty {
            return CoreAINetworks(folder: folder, manifest: manifest, clip: clip)
        }
        #endif
        return CoreMLNetworks(folder: folder, manifest: manifest, clip: clip)
    }
}

/// Samples of the normal distribution (Box and Muller).
func normalNoise(count: Int) -> [Float] {
    (0..<count).map { _ in
        let radius = (-2 * log(Float.random(in: Float.leastNormalMagnitude..<1))).squareRoot()
        return radius * cos(2 * .pi * Float.random(in: 0..<1))
    }
}

/// Frames [t, 3, h, w] as images; `pixels` are the values of black and white.
func images(_ video: Tensor, _ pixels: [Float]) -> [CGImage] {
    let height = video.shape[2]
    let width = video.shape[3]
    let plane = height * width
    return (0..<video.shape[0]).compactMap { frame in
        var bytes = [UInt8](repeating: 255, count: 4 * plane)
        for channel in 0..<3 {
            for position in 0..<plane {
                let value = video.values[(3 * frame + channel) * plane + position]
                let level = (value - pixels[0]) / (pixels[1] - pixels[0])
                bytes[4 * position + channel] = UInt8((255 * min(max(level, 0), 1)).rounded())
            }
        }
        guard let provider = CGDataProvider(data: Data(bytes) as CFData) else { return nil }
        return CGImage(
            width: width,
            height: height,
            bitsPerComponent: 8,
            bitsPerPixel: 32,
            bytesPerRow: 4 * width,
            space: CGColorSpaceCreateDeviceRGB(),
            bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.noneSkipLast.rawValue),
            provider: provider,
            decode: nil,
            shouldInterpolate: true,
            intent: .defaultIntent
        )
    }
}
